"""The two reference systems of a development environment, with sample people in them."""

import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from keshi.dev import places
from keshi.dev.credentials import Credentials
from keshi.dev.postgres import PostgresServer, drop_database
from keshi.dev.processes import PartSpec
from keshi.dev.systems import billing, crm
from keshi.dev.systems.crm import store
from keshi.dev.systems.people import Person, people

_DATABASE = "billing"


@dataclass(frozen=True)
class Sample:
    """Who is in the systems. A kept directory goes on with the people that it was filled with.

    Attributes:
        number: how many.
        today: the day from which the age of their invoices counts.
        fresh: nobody is in the systems yet.
    """

    number: int
    today: date
    fresh: bool

    def people(self) -> tuple[Person, ...]:
        return people(self.number, today=self.today)


@dataclass(frozen=True)
class Billing:
    """Where the billing database is.

    Attributes:
        owner_dsn: for a look past all handlers.
        handler_dsn: for the handler's role.
    """

    owner_dsn: str = field(repr=False)
    handler_dsn: str = field(repr=False)


def sample(directory: Path, number: int) -> Sample:
    """Who is in the systems of this directory, or is to be."""
    try:
        kept = json.loads((directory / "sample.json").read_text(encoding="ascii"))
    except FileNotFoundError:
        return Sample(number, datetime.now(UTC).date(), fresh=True)
    return Sample(kept["people"], date.fromisoformat(kept["today"]), fresh=False)


def keep_sample(directory: Path, filled: Sample) -> None:
    """Note who was filled in, once all of it is."""
    text = json.dumps({"people": filled.number, "today": filled.today.isoformat()})
    (directory / "sample.json").write_text(text, encoding="ascii")


def fill_billing(server: PostgresServer, credentials: Credentials, who: Sample) -> Billing:
    """The database on a running server, with its tables, its role and its people."""
    if who.fresh:
        drop_database(server.dsn(), _DATABASE)  # what an interrupted start left behind
        server.create_database(_DATABASE)
    dsn = server.dsn(_DATABASE)
    handler = billing.create(dsn, password=credentials.billing_password)
    if who.fresh:
        billing.seed(dsn, who.people())
    return Billing(dsn, handler)


@dataclass(frozen=True)
class Crm:
    """Where the CRM is, and how its process is started."""

    url: str
    data: Path
    spec: PartSpec


def fill_crm(directory: Path, credentials: Credentials, who: Sample, *, slow_ms: int) -> Crm:
    """The CRM's store with its people; the process is started by whoever owns it."""
    data = directory / "data"
    if who.fresh:
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted start left behind
    data.mkdir(parents=True, exist_ok=True)
    if who.fresh:
        store.seed(data, who.people())
    port = places.free_port()
    argv = crm.command(data, port, credentials.crm_token_file, slow_ms=slow_ms)
    return Crm(f"http://127.0.0.1:{port}", data, PartSpec("crm", tuple(argv), directory / "crm.log", cwd=directory))
