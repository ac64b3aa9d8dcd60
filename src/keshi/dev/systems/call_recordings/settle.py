"""How the call recordings settle: their index, their S3 server, and their people's calls."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from keshi.dev import s3
from keshi.dev.postgres import drop_database
from keshi.dev.systems import snapshots
from keshi.dev.systems.call_recordings import index
from keshi.dev.systems.call_recordings.bucket import HANDLER_MAY, PLAYER_MAY, Bucket
from keshi.dev.systems.call_recordings.sample import calls, strangers
from keshi.dev.systems.site import Settled, Site

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keshi.dev.systems.people import Person

SYSTEM: Final = "call_recordings"
PART: Final = "call_recordings-s3"


def settle(site: Site) -> Settled:
    """The index on the site's PostgreSQL server, and an S3 server of its own."""
    data = site.directory / "s3"
    if site.fresh:
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted start left behind
        drop_database(site.server.dsn(), SYSTEM)
        site.server.create_database(SYSTEM)
    dsn = site.server.dsn(SYSTEM)
    handler_dsn = index.create(dsn, password=site.secret(f"{SYSTEM}.password"))
    owner, handler, player = (s3.Account(f"{SYSTEM}-{who}", _key(site, who)) for who in ("owner", "handler", "player"))
    server = s3.server(PART, data, owner, (handler, player))
    data.mkdir(exist_ok=True)
    site.start(server.spec, server.ready)
    bucket = Bucket(server.url, owner)
    bucket.create({handler.access_key: HANDLER_MAY, player.access_key: PLAYER_MAY})
    if site.fresh:
        seed(dsn, bucket, site.people)
    return Settled(
        system=SYSTEM,
        address=f"{server.url}/{bucket.name}",
        handler={
            "KESHI_CALL_RECORDINGS_DSN": handler_dsn,
            "KESHI_CALL_RECORDINGS_S3_ENDPOINT": server.url,
            "KESHI_CALL_RECORDINGS_S3_BUCKET": bucket.name,
            "KESHI_CALL_RECORDINGS_S3_REGION": s3.REGION,
            "KESHI_CALL_RECORDINGS_S3_ACCESS_KEY": handler.access_key,
            "KESHI_CALL_RECORDINGS_S3_SECRET_KEY_FILE": str(site.secret_file(_file("handler"))),
        },
        rows=lambda: snapshots.sql_rows(dsn) | bucket.rows(),
        inside={
            "dsn": dsn,
            "endpoint": server.url,
            "bucket": bucket.name,
            "access_key": owner.access_key,
            "secret_key": owner.secret_key,
        },
    )


def seed(dsn: str, bucket: Bucket, people: Iterable[Person]) -> None:
    """Write everybody's calls, and those of strangers."""
    everything = [call for person in people for call in (*calls(person), *strangers(person))]
    index.seed(dsn, everything)
    bucket.fill(blob for call in everything for blob in call.blobs)


def _key(site: Site, who: str) -> str:
    return site.secret(_file(who))


def _file(who: str) -> str:
    return f"{SYSTEM}.{who}.key"
