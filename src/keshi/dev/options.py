"""What `keshi dev up` and `keshi dev demo` can be told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"


@dataclass(frozen=True)
class UpOptions:
    """How the development environment runs.

    Attributes:
        ledger: `sqlite` keeps it in a file, `postgresql` starts a server for it; or the URL of one that exists. None
            takes what is kept in `data` already, else a server for several orchestrators, else a file.
        inventory: another inventory than the reference company's. Of its systems, those that keshi has a reference
            system for are started with their workers; for the others, the settings of a worker are written down.
        people: how many sample people the systems hold.
        partitions: of each topic that belongs to requests.
        prefix: of all topics; None takes `KESHI_KAFKA_PREFIX`, or `keshi.`.
        json: print one line of JSON on standard output when all parts are ready.
        data: holds all data, keys and logs, and is kept; None makes one that is removed at the end.
        failpoints_dir: where failpoints are armed; None switches them off.
        orchestrators: processes that share the work.
        workers: processes for each system.
        restart: start a part that died again, as Kubernetes would.
        restarts_a_minute: a part that dies more often has to wait for its next start.
        commands_retention_ms: how long `commands` keeps a message; None keeps the default.
        commands_segment_ms: how long a segment of `commands` is written to; None keeps the default.
        slow_ms: each reference system with a process of its own waits so long before each write.
        partner_ms: a partner of the marketing tool takes so long to take somebody from its list.
        env: further environment of keshi's processes; it wins over everything else. Tuning such as
            `KESHI_LEASE_SECONDS` may stand here or in the environment of this process.
    """

    ledger: str | None = field(default=None, repr=False)  # may hold a password
    inventory: Path | None = None
    people: int = 1000
    partitions: int = 4
    prefix: str | None = None
    json: bool = False
    data: Path | None = None
    failpoints_dir: Path | None = None
    orchestrators: int = 1
    workers: int = 1
    restart: bool = True
    restarts_a_minute: int = 12
    commands_retention_ms: int | None = None
    commands_segment_ms: int | None = None
    slow_ms: int = 0
    partner_ms: int = 0
    env: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets


@dataclass(frozen=True)
class DemoOptions:
    """How the demo runs.

    Attributes:
        people: how many sample people the systems hold; the commands need 40 of them.
        seconds: in so much time all requests have to be closed.
        env: further environment of keshi's processes.
    """

    people: int = 1000
    seconds: float = 120.0
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
