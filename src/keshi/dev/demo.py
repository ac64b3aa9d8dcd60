"""`keshi dev demo`: erase sample people from five running systems, then look whether they are gone.

The look is not keshi's: it reads all stores by itself, before and after, and knows nothing of handlers.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from kafka.errors import KafkaError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keshi.dev import demo_show
from keshi.dev.demo_commands import Script, Step, script
from keshi.dev.demo_sender import Sender
from keshi.dev.errors import DevError
from keshi.dev.options import DemoOptions, UpOptions
from keshi.dev.stack import Stack, external_kafka
from keshi.dev.supervisor import Stopped
from keshi.dev.systems.look import Findings, compare, snapshot
from keshi.dev.up import Shown
from keshi.runtime.kafka import new_admin
from keshi.runtime.settings import ConfigurationError, KafkaSettings, load
from keshi.schemas.closure import ClosureRecord
from keshi.schemas.outcomes import Verdict

_PARTITIONS = 4
_NOTICE_SECONDS = 20.0


@dataclass(frozen=True)
class Story:
    """What the demo saw."""

    script: Script
    findings: Findings
    wrong: Mapping[str, str]
    """Title of a step → what is not as it should be."""

    @property
    def ok(self) -> bool:
        return self.findings.ok and not self.wrong


def run_demo(options: DemoOptions) -> int:
    """Run the whole demo.

    Returns:
        The exit code: 0 if everything that was to happen did and nothing else, 1 otherwise; 128 and the
        number of the signal that ended it.
    """
    show, began = Shown(), time.monotonic()
    # On somebody's cluster the demo keeps to topics of its own, and takes them away again.
    prefix = f"keshi.demo-{secrets.token_hex(6)}." if external_kafka() else None
    up = UpOptions(people=options.people, partitions=_PARTITIONS, prefix=prefix, restart=False, env=options.env)
    try:
        with Stack(up, show) as stack:
            show(f"Everything runs after {time.monotonic() - began:.0f} s: {_listed(stack.phases)}.")
            story = _play(stack, options, show)
        show(f"The demo took {time.monotonic() - began:.0f} s.")
    except Stopped as stopped:
        show("The demo was ended.")
        return int(stopped.code or 1)
    except (DevError, ConfigurationError) as error:
        show(f"keshi dev demo: {error}")
        return 1
    finally:
        if prefix:
            _take_away(prefix, show)
    for title, problem in story.wrong.items():
        show(f"Not as it should be: {title}: {problem}")
    sys.stdout.write(json.dumps(story.findings.as_json()) + "\n")
    sys.stdout.flush()
    return 0 if story.ok else 1


def _take_away(prefix: str, show: Shown) -> None:
    try:
        admin = new_admin(load(KafkaSettings))
        try:
            ours = [topic["name"] for topic in admin.describe_topics() if topic["name"].startswith(prefix)]
            admin.delete_topics(ours)
        finally:
            admin.close()
    except (KafkaError, ConfigurationError) as error:
        show(f"The topics {prefix}… could not be deleted: {type(error).__name__}.")


def _listed(phases: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in phases.items())


def _play(stack: Stack, options: DemoOptions, show: Shown) -> Story:
    everybody = stack.sample.people()
    play = script(everybody, _PARTITIONS)
    before = snapshot(stack.settled.values())
    with Sender(stack.kafka) as sender:
        began = time.monotonic()
        _send(stack, sender, play.steps, options, show)
        told = _told(stack, [step for step in play.steps if step.kind == "RecordNotice"])
        show(f"All commands were answered after {time.monotonic() - began:.1f} s; now a look into all systems.")
        after = snapshot(stack.settled.values())
        findings = compare(before, after, play.expectations, today=stack.sample.today, scopes=play.scopes)
        wrong = {step.title: problem for step in play.steps if (problem := sender.wrong(step))}
        if not told:
            wrong["the person was told"] = "not noted"
        _show(sender, play, findings)
    return Story(play, findings, wrong)


def _send(stack: Stack, sender: Sender, steps: Iterable[Step], options: DemoOptions, show: Shown) -> None:
    """Send, and wait for all to be answered; what is not within the bound shows as such."""
    first, second = [step for step in steps if not step.later], [step for step in steps if step.later]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=show.console, transient=True) as progress:
        bar = progress.add_task("Commands answered", total=len(first) + len(second))
        until = time.monotonic() + options.seconds

        def answered(wanted: Iterable[Step]) -> None:
            while open_ := [step for step in wanted if not sender.answered(step)]:
                sender.poll()
                stack.check()
                progress.update(bar, completed=sum(map(sender.answered, sent)))
                if time.monotonic() > until:
                    titles = ", ".join(step.title for step in open_)
                    raise _OutOfTimeError(f"Not answered within {options.seconds:.0f} s: {titles}.")

        sent = list(first)
        try:
            with _held_up(stack, "worker-crm"):
                sender.send(first)
                answered([step for step in first if step.early])
            answered(first)
            sent += second
            sender.send(second)
            answered(second)
        except _OutOfTimeError as error:
            show(str(error))


class _OutOfTimeError(Exception):
    """Some command was not answered; the look goes on all the same."""


@contextmanager
def _held_up(stack: Stack, part: str) -> Iterator[None]:
    """For a moment, so that what is to come in between surely does."""
    stack.freeze(part)
    try:
        yield
    finally:
        stack.thaw(part)


def _told(stack: Stack, notices: Iterable[Step]) -> bool:
    """Whether the API says of these requests that the person was told. No message answers a notice."""
    headers = {"Authorization": f"Bearer {stack.credentials.reader}"}
    until = time.monotonic() + _NOTICE_SECONDS
    with httpx.Client(base_url=stack.api_url, headers=headers, timeout=5, trust_env=False) as api:
        for step in notices:
            while not _noted(api, step.request_id):
                if time.monotonic() > until:
                    return False
                time.sleep(0.1)
    return True


def _noted(api: httpx.Client, request_id: str) -> bool:
    try:
        return bool(api.get(f"/v1/requests/{request_id}").raise_for_status().json().get("notified_at"))
    except httpx.HTTPError:
        return False


def _show(sender: Sender, play: Script, findings: Findings) -> None:
    # Where nobody sees it on a screen, lines are not to be broken after 80 columns.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 150
    console = Console(width=width, highlight=False)
    demo_show.closures(console, play.steps, sender)
    record = _telling(play, sender)
    if record:
        demo_show.whole(console, record)
    demo_show.look(console, findings)


def _telling(play: Script, sender: Sender) -> ClosureRecord | None:
    """The record with the most in it: one with something that the law keeps."""
    for step in play.steps:
        closures = sender.answers[step.request_id].closures
        if closures and closures[0].verdict is Verdict.FULFILLED_WITH_EXCEPTIONS:
            return closures[0]
    return None
