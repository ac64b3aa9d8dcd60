"""How the MA tool settles: its store with its people, and its process."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from keshi.dev import places
from keshi.dev.processes import PartSpec
from keshi.dev.systems import ma_tool, snapshots
from keshi.dev.systems.ma_tool import store
from keshi.dev.systems.site import Settled, Site

if TYPE_CHECKING:
    from pathlib import Path

    from keshi.dev.systems.snapshots import Rows

SYSTEM: Final = "ma_tool"


def settle(site: Site) -> Settled:
    """The store with its people, and its process."""
    data = site.directory / "data"
    if site.fresh:
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted start left behind
        store.seed(data, site.people)
    port = places.free_port()
    url, token_file = f"http://127.0.0.1:{port}", site.secret_file(f"{SYSTEM}.token")
    pace = ma_tool.Pace(slow_ms=site.slow_ms, partner_ms=site.partner_ms)
    argv = ma_tool.command(data, port, token_file, pace)
    site.start(PartSpec(SYSTEM, tuple(argv), site.directory / f"{SYSTEM}.log", cwd=site.directory), f"{url}/healthz")
    return Settled(
        system=SYSTEM,
        address=url,
        handler={"KESHI_MA_TOOL_URL": url, "KESHI_MA_TOOL_TOKEN_FILE": str(token_file)},
        rows=lambda: rows(data),
        inside={"url": url, "data": str(data), "token": site.secret(f"{SYSTEM}.token")},
    )


def rows(data: Path) -> Rows:
    """Every row of every table, but for the deletion jobs: they are new, and about nobody."""
    found = snapshots.file_rows(data / store.FILE)
    return {ref: row for ref, row in found.items() if not ref.startswith("deletions:")}
