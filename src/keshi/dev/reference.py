"""The reference systems of a development environment, with sample people in them."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from keshi.dev import places, s3
from keshi.dev.postgres import drop_database
from keshi.dev.processes import PartSpec
from keshi.dev.systems import billing, call_recordings, crm, snapshots
from keshi.dev.systems.affiliates import settle as affiliates
from keshi.dev.systems.crm import store
from keshi.dev.systems.ma_tool.settle import settle as settle_ma_tool
from keshi.dev.systems.people import Person, people
from keshi.dev.systems.site import Settled, Site


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


def settle_billing(site: Site) -> Settled:
    """The database on a running server, with its tables, its role and its people."""
    dsn = new_database(site, "billing")
    handler = billing.create(dsn, password=site.secret("billing.password"))
    if site.fresh:
        billing.seed(dsn, site.people)
    return Settled(
        system="billing",
        address=without_password(dsn),
        handler={"KESHI_BILLING_DSN": handler},
        rows=lambda: snapshots.sql_rows(dsn),
        inside={"dsn": dsn},
    )


def new_database(site: Site, name: str) -> str:
    """A database of this name on the server of the site, empty where the site is fresh: its owner's DSN."""
    if site.fresh:
        drop_database(site.server.dsn(), name)  # what an interrupted start left behind
        site.server.create_database(name)
    return site.server.dsn(name)


def settle_crm(site: Site) -> Settled:
    """The CRM's store with its people, and its process."""
    data = site.directory / "data"
    if site.fresh:
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted start left behind
    data.mkdir(parents=True, exist_ok=True)
    if site.fresh:
        store.seed(data, site.people)
    port = places.free_port()
    url, token_file = f"http://127.0.0.1:{port}", site.secret_file("crm.token")
    argv = crm.command(data, port, token_file, slow_ms=site.slow_ms)
    site.start(PartSpec("crm", tuple(argv), site.directory / "crm.log", cwd=site.directory), f"{url}/healthz")
    return Settled(
        system="crm",
        address=url,
        handler={"KESHI_CRM_URL": url, "KESHI_CRM_TOKEN_FILE": str(token_file)},
        rows=lambda: snapshots.file_rows(data / "crm.sqlite3"),
        inside={"url": url, "data": str(data), "token": site.secret("crm.token")},
    )


SETTLE: Final[Mapping[str, Callable[[Site], Settled]]] = {
    "billing": settle_billing,
    "crm": settle_crm,
    "affiliates": affiliates.settle,
    "call_recordings": call_recordings.settle,
    "ma_tool": settle_ma_tool,
}
"""How each system of the inventory settles."""

PREPARE: Final[Mapping[str, Callable[[], None]]] = {
    "call_recordings": s3.prepare,
}
"""What has to be fetched first for some of them."""


def without_password(url: str) -> str:
    """An address as it may be shown."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
