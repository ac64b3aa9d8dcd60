"""`keshi submit …`: one command for each kind of command that a sender can give."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from keshi.cli.asked import SOURCE, Asked, Who, identifiers_of, read_command
from keshi.cli.bulk import BulkOptions, submit_file
from keshi.cli.closure import tell_account
from keshi.cli.errors import REJECTED, TIMED_OUT, Failure
from keshi.cli.http import Api
from keshi.cli.output import note, say, say_json
from keshi.cli.reading import ZONE, day_and_time, request_id_of, words_of
from keshi.cli.records import show_record
from keshi.client import Client, NotOverError, NotSentError, Submitted, UnreadableAnswerError
from keshi.client.answers import Answer
from keshi.client.commands import event_of
from keshi.orchestrator.words import Language, Words
from keshi.runtime.settings import ConfigurationError, KafkaSettings, load
from keshi.schemas.commands import (
    EraseSubject,
    Regime,
    ResumeUse,
    StopProvision,
    SubjectCommand,
    SuspendUse,
    WithdrawRequest,
)
from keshi.schemas.requests import RequestAccepted, RequestClosed, RequestOverdue, RequestRejected, TaskStatus

app = typer.Typer(no_args_is_help=True, invoke_without_command=True)


class WaitFor(StrEnum):
    """When a line of a file is done."""

    NONE = "none"
    ACCEPTED = "accepted"
    CLOSED = "closed"


_PERSON: Final = "The person"
_CASE: Final = "The case"
_SENDING: Final = "Sending"
_SUBMIT_HELP: Final = """

    What stands on a command line can be seen by others on this machine: --identifiers-file reads from a file or
    standard input. Prints the request id; with --wait also the closure (exit code 3: rejected, 4: not over in time):
    in words where there is an API to ask (KESHI_API_URL, KESHI_API_TOKEN), else as tables. Needs KESHI_KAFKA_BOOTSTRAP.
"""


def _several(explained: str, *, name: str | None = None, **more: Any) -> Any:
    return typer.Option(*([name] if name else []), help=explained, rich_help_panel="A file of commands", **more)


WAIT = Annotated[bool, typer.Option("--wait", help="Listen until it is closed or rejected.", rich_help_panel=_SENDING)]
TIMEOUT = Annotated[
    float, typer.Option(min=1, max=86_400, metavar="SECONDS", help="How long to wait.", rich_help_panel=_SENDING)
]
TOLD_IN = Annotated[
    Language,
    typer.Option(
        "--closure-language", envvar="KESHI_LANGUAGE", help="Language of the closure.", rich_help_panel=_SENDING
    ),
]
JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=_SENDING)]
DRY = Annotated[
    bool,
    typer.Option("--dry-run", help="Check it, print the CloudEvent and send nothing.", rich_help_panel=_SENDING),
]


@app.callback()
def _submit(
    ctx: typer.Context,
    file: Annotated[
        str | None, _several("CloudEvents to send, one a line (JSON lines); `-` is standard input.", metavar="FILE")
    ] = None,
    wait: Annotated[
        WaitFor,
        _several("When a line is done: Kafka has it (none), keshi took it, or it is closed.", show_default=True),
    ] = WaitFor.ACCEPTED,
    timeout: Annotated[
        float, _several("How long to wait for the answer to one line.", metavar="SECONDS", min=1, max=86_400)
    ] = 300,
    in_flight: Annotated[
        int | None, _several("Lines under way, at most. Default: 1000; with --wait closed 10000.", min=1, max=1_000_000)
    ] = None,
    keep_going: Annotated[
        bool, _several("Send the good lines though others are bad. Else: nothing is sent.", name="--keep-going")
    ] = False,
    state: Annotated[
        Path | None, _several("What was accepted, so that it is not sent again. Default: FILE.state.", metavar="PATH")
    ] = None,
    rejects: Annotated[
        Path | None, _several("What is bad or was rejected, and why. Default: FILE.rejects.", metavar="PATH")
    ] = None,
    as_json: Annotated[bool, _several("Print the result as one JSON object.", name="--json")] = False,
    dry_run: Annotated[bool, _several("Check all lines, and send nothing.", name="--dry-run")] = False,
) -> None:
    """Send a command, or with --file many, and listen for what becomes of it.

    All lines of a file are checked first. It may be killed and run again: what was
    accepted is not sent again, and a repeat does no harm. Exit codes with --file: 0 all
    done, 1 stopped before the end, 3 lines bad or rejected, 4 some not over in time.
    """
    if ctx.invoked_subcommand is not None:
        if file is not None:
            raise ConfigurationError("--file and a command: give one of them")
        return
    if file is None:
        raise ConfigurationError("say what to send: a command such as `keshi submit erase`, or --file")
    options = BulkOptions(
        file=file,
        wait=wait.value,
        timeout=timeout,
        in_flight=in_flight,
        keep_going=keep_going,
        state=state,
        rejects=rejects,
        dry_run=dry_run,
        as_json=as_json,
    )
    raise typer.Exit(submit_file(options))


def _many(explained: str, *names: str, panel: str = _PERSON, metavar: str = "VALUE") -> Any:
    return typer.Option(*names, metavar=metavar, help=f"{explained} May be repeated.", rich_help_panel=panel)


def _one(explained: str, metavar: str = "REF", **more: Any) -> Any:
    return typer.Option(metavar=metavar, help=explained, rich_help_panel=_CASE, **more)


def _submits(model: type[SubjectCommand], what: str) -> Callable[..., None]:
    def submit(
        email: Annotated[list[str] | None, _many("An e-mail address.")] = None,
        phone: Annotated[list[str] | None, _many("A phone number in E.164 form, +81….")] = None,
        customer_id: Annotated[list[str] | None, _many("A customer id.")] = None,
        contract_id: Annotated[list[str] | None, _many("A contract id.")] = None,
        cookie_id: Annotated[list[str] | None, _many("A cookie id.")] = None,
        device_id: Annotated[list[str] | None, _many("A device id.")] = None,
        identifier: Annotated[
            list[str] | None, _many("An identifier of any type, also own ones (x-…).", metavar="TYPE=VALUE")
        ] = None,
        identifiers_file: Annotated[
            str | None,
            typer.Option(
                metavar="FILE",
                help='A JSON list of {"type": …, "value": …}; `-` is standard input.',
                rich_help_panel=_PERSON,
            ),
        ] = None,
        category: Annotated[list[str] | None, _many("Only this data category.", panel=_CASE, metavar="NAME")] = None,
        purpose: Annotated[list[str] | None, _many("Only this purpose.", panel=_CASE, metavar="NAME")] = None,
        item: Annotated[list[str] | None, _many("Only this item, `kind:id`.", panel=_CASE, metavar="REF")] = None,
        regime: Annotated[
            Regime | None,
            typer.Option(
                help="Body of rules. Default: that of --ground, else appi.", rich_help_panel=_CASE, show_default=False
            ),
        ] = None,
        ground: Annotated[
            str | None, _one("Ground in a rule file, such as appi.35-5, the default under appi.", "ID")
        ] = None,
        requested_by: Annotated[Who, typer.Option(help="Who asked.", rich_help_panel=_CASE)] = Who.PERSON,
        identity_evidence: Annotated[
            list[str] | None, _many("Reference to evidence of identity.", panel=_CASE, metavar="REF")
        ] = None,
        mandate_evidence: Annotated[
            list[str] | None, _many("Reference to evidence of a mandate.", panel=_CASE, metavar="REF")
        ] = None,
        assessed_by: Annotated[
            str | None,
            _one(
                "Who judged that it is to be carried out, `staff:kato`. Needed.",
                envvar="KESHI_ASSESSED_BY",
                show_envvar=True,
            ),
        ] = None,
        assessed_at: Annotated[str | None, _one("When. Default: now.", "TIME")] = None,
        arrived_at: Annotated[
            str | None, _one("When the request arrived, 2026-04-01T09:00:00+09:00. Default: now.", "TIME")
        ] = None,
        channel: Annotated[str | None, _one("By which channel. Default: channel:cli.")] = None,
        due: Annotated[str | None, _one("Due by. Default: by the ground.", "TIME")] = None,
        language: Annotated[str | None, _one("Language of the notice. Default: ja.", "LANGUAGE")] = None,
        request_id: Annotated[str | None, _one("UUID or ULID. Default: a new ULID.", "ID")] = None,
        wait: WAIT = False,
        timeout: TIMEOUT = 300,
        told_in: TOLD_IN = Language.EN,
        zone: ZONE = "UTC",
        as_json: JSON = False,
        dry_run: DRY = False,
    ) -> None:
        words = words_of(told_in, zone)
        by_type = {
            "email": email,
            "phone": phone,
            "customer_id": customer_id,
            "contract_id": contract_id,
            "cookie_id": cookie_id,
            "device_id": device_id,
        }
        asked = Asked(
            identifiers=identifiers_of(by_type, identifier, identifiers_file),
            scope={"categories": category, "purposes": purpose, "items": item},
            regime=regime,
            ground=ground,
            requested_by=requested_by,
            identity_evidence=identity_evidence,
            mandate_evidence=mandate_evidence,
            assessed_by=assessed_by,
            assessed_at=assessed_at,
            arrived_at=arrived_at,
            channel=channel,
            due=due,
            language=language,
            request_id=request_id,
        )
        command = read_command(model, asked)
        if dry_run:
            say(event_of(command, source=SOURCE).decode())
            return
        seconds = timeout if wait else None
        _carry_out(command.request_id, lambda c: c.submit(command), seconds, words, as_json=as_json)

    submit.__doc__ = what + _SUBMIT_HELP
    return submit


app.command("erase")(_submits(EraseSubject, "Erase a person's data."))
app.command("suspend-use")(_submits(SuspendUse, "Stop using a person's data, without erasing it."))
app.command("resume-use")(_submits(ResumeUse, "Lift what an earlier suspend-use suspended, and nothing else."))
app.command("stop-provision")(_submits(StopProvision, "Stop giving a person's data to third parties."))


@app.command("withdraw")
def withdraw(
    request: Annotated[str, typer.Argument(help="A request id.")],
    wait: WAIT = False,
    timeout: TIMEOUT = 300,
    told_in: TOLD_IN = Language.EN,
    zone: ZONE = "UTC",
    as_json: JSON = False,
    dry_run: DRY = False,
) -> None:
    """Take a request back: what has not begun will not begin, and the record says what had.

    Exit code with --wait: 3 rejected (it was closed before), 4 not over in time. Needs KESHI_KAFKA_BOOTSTRAP.
    """
    request_id, words = request_id_of(request), words_of(told_in, zone)
    if dry_run:
        say(event_of(WithdrawRequest(request_id=request_id), source=SOURCE).decode())
        return
    _carry_out(request_id, lambda c: c.withdraw(request_id), timeout if wait else None, words, as_json=as_json)


def _carry_out(
    request_id: str, send: Callable[[Client], Submitted], seconds: float | None, words: Words, *, as_json: bool
) -> None:
    kafka = load(KafkaSettings)
    with Client(kafka, SOURCE) as client:
        since = client.mark() if seconds else None
        try:
            sent = send(client)
        except NotSentError as e:
            raise Failure(f"{e} (request {request_id})") from None
        topic = kafka.topic("commands")
        told: dict[str, Any] = {
            "request_id": request_id,
            "topic": topic,
            "partition": sent.partition,
            "offset": sent.offset,
        }
        if not as_json:
            say(request_id)
            note(f"sent to {topic}, partition {sent.partition}, offset {sent.offset}")
        if seconds is None:
            if as_json:
                say_json(told)
            return
        try:
            if not as_json:
                note(f"waiting for the closure, {seconds:g} s at most; it goes on without us")
            answer = client.wait(
                request_id, seconds, since=since, command=sent, heard=None if as_json else _tell_of_the_way
            )
        except NotOverError as e:
            if as_json:
                say_json(told | {"result": "timeout"})
            raise Failure(str(e), TIMED_OUT) from None
        except UnreadableAnswerError as e:
            raise Failure(f"{e}: upgrade keshi here") from None
    _show(answer, told if as_json else None, words)


def _tell_of_the_way(answer: Answer) -> None:
    """What is answered before the end, beside the answer."""
    if isinstance(answer, RequestAccepted | RequestOverdue):
        state = answer.state
        tasks = sum(1 for t in state.tasks if t.status is not TaskStatus.ENDED)
        word = "overdue" if isinstance(answer, RequestOverdue) else "accepted"
        behind = f", behind {state.waits_for}" if state.waits_for else ""
        note(f"{word}: due {day_and_time(state.due_at)}, open in {tasks} systems{behind}")


def _show(answer: RequestClosed | RequestRejected, told: dict[str, Any] | None, words: Words) -> None:
    result: Literal["closed", "rejected"] = "closed" if isinstance(answer, RequestClosed) else "rejected"
    if told is not None:
        say_json(told | {"result": result} | answer.model_dump(mode="json", exclude_none=True))
    elif isinstance(answer, RequestClosed):
        _tell(answer, words)
    if isinstance(answer, RequestRejected):
        at = f" at {answer.field}" if answer.field else ""
        raise Failure(f"rejected: {answer.code.value}{at}: {answer.detail}", REJECTED)


def _tell(answer: RequestClosed, words: Words) -> None:
    """As `keshi closure` does; without the API, which knows titles and opens reasons, as tables of the record."""
    try:
        with Api() as api:
            account = api.get(f"/v1/requests/{answer.state.request_id}/account")
    except (ConfigurationError, Failure) as e:
        note(f"not in words, as `keshi closure` tells it: {e}")
        show_record(answer.closure)
    else:
        tell_account(account, words)
