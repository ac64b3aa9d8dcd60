"""The sixth system of the documentation: its handler beside keshi's own, by the steps of `docs/write-a-handler.md`."""

import os
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from end_to_end.test_dev_up import directory, line_of, up

__all__ = ["directory"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "helpdesk"
KESHI = (sys.executable, "-m", "keshi.cli")


def settings(file: Path) -> dict[str, str]:
    """What a shell takes from the file."""
    return dict(line.split("=", 1) for line in shlex.split(file.read_text(encoding="utf-8")))


def test_the_example_is_at_most_sixty_lines() -> None:
    assert len((EXAMPLE / "helpdesk.py").read_text(encoding="utf-8").splitlines()) <= 60


def test_a_handler_of_a_further_system_takes_part(
    kafka_bootstrap: str, topic_prefix: str, directory: Path, tmp_path: Path
) -> None:
    tickets = tmp_path / "tickets.db"
    subprocess.run([sys.executable, EXAMPLE / "tickets.py", tickets], check=True)
    kafka = {"KESHI_KAFKA_BOOTSTRAP": kafka_bootstrap, "KESHI_KAFKA_PREFIX": topic_prefix}
    with up("--json", "--inventory", str(EXAMPLE / "inventory.yaml"), "--data", str(directory), **kafka) as process:
        told = line_of(process)
        assert set(told["systems"]) == {"crm"}, "the help desk is somebody else's to run"
        environment = {**os.environ, **settings(directory / "keys" / "worker-helpdesk.env")}
        worker = subprocess.Popen(
            [*KESHI, "handler", "run", "helpdesk"],
            env={
                **environment,
                "KESHI_HELPDESK_FILE": str(tickets),
                "KESHI_DEV_HANDLERS": "helpdesk=helpdesk:Helpdesk",
                "PYTHONPATH": str(EXAMPLE),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            command = "submit erase --email hanako.keshi@customer.example --ground appi.35-5 --wait --timeout 60"
            mine = {**os.environ, **settings(directory / "keys" / "mine.env")}
            done = subprocess.run(
                [*KESHI, *command.split()], env=mine, capture_output=True, text=True, timeout=90, check=False
            )
        finally:
            worker.kill()
            worker.wait()
    assert done.returncode == 0, done.stderr
    assert "Tickets, with all that the person wrote: 2 records erased." in done.stdout
    with closing(sqlite3.connect(tickets)) as db:
        assert db.execute("SELECT id FROM tickets").fetchall() == [("T-3",)]


@pytest.mark.parametrize("what", ["helpdesk.py", "test_helpdesk.py", "inventory.yaml", "tickets.py"])
def test_the_page_names_what_there_is(what: str) -> None:
    page = (EXAMPLE.parents[1] / "docs" / "write-a-handler.md").read_text(encoding="utf-8")
    assert f"examples/helpdesk/{what}" in page
    assert (EXAMPLE / what).is_file()
