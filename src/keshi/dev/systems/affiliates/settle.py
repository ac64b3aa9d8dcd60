"""How the affiliates settle: two processes with their members, their keys, and the file that a handler needs."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

import yaml

from keshi.dev import places
from keshi.dev.processes import PartSpec
from keshi.dev.systems import snapshots
from keshi.dev.systems.affiliates import COMPANIES, PHONE, Keys, command
from keshi.dev.systems.affiliates.certificates import Authority, in_force
from keshi.dev.systems.affiliates.store import FILE, REQUESTS, seed
from keshi.dev.systems.site import Settled, Site

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from keshi.dev.systems.snapshots import Rows

SYSTEM: Final = "affiliates"
_FIRST_CHECK, _LONGEST_CHECK = 1, 10
"""Seconds. Nobody at a keyboard waits for hours."""


def settle(site: Site) -> Settled:
    """Both companies."""
    keys, authorities = make_keys(site)
    urls, data = {}, {}
    for company in COMPANIES:
        data[company] = site.directory / company
        if site.fresh:
            shutil.rmtree(data[company], ignore_errors=True)  # what an interrupted start left behind
            seed(data[company], company, site.people)
        port = places.free_port()
        urls[company] = f"http://127.0.0.1:{port}"
        argv = command(company, data[company], port, keys[company], slow_ms=site.slow_ms)
        log = site.directory / f"{company}.log"
        site.start(PartSpec(f"affiliate-{company}", tuple(argv), log, cwd=site.directory), f"{urls[company]}/healthz")
    file = site.directory / "affiliates.yaml"
    file.write_text(yaml.safe_dump(configuration(urls, keys, authorities)), encoding="utf-8")
    handler = {"KESHI_AFFILIATES_FILE": str(file)}
    if site.inventory:
        handler["KESHI_AFFILIATES_INVENTORY"] = str(site.inventory)
    return Settled(
        system=SYSTEM,
        address=", ".join(urls.values()),
        handler=handler,
        rows=lambda: rows(data.values()),
        inside={
            "urls": urls,
            "data": {name: str(path) for name, path in data.items()},
            "tokens": {name: files.token.read_text(encoding="ascii").strip() for name, files in keys.items()},
        },
    )


def make_keys(site: Site) -> tuple[dict[str, Keys], Path]:
    """The files of each company, made where they are missing or run out, and the authority that we trust."""
    trusted = site.secrets / "affiliates-authority.pem"
    keys = {
        company: Keys(
            site.secret_file(f"affiliate-{company}.token"),
            site.secrets / f"affiliate-{company}.key",
            site.secrets / f"affiliate-{company}.pem",
        )
        for company in COMPANIES
    }
    if not all(in_force(path) for path in (trusted, *(files.certificate for files in keys.values()))):
        authority = Authority("Sample authority of affiliates")
        for company, files in keys.items():
            authority.issue(COMPANIES[company].domain, files.key, files.certificate)
        authority.write(trusted)
    return keys, trusted


def configuration(urls: Mapping[str, str], keys: Mapping[str, Keys], authorities: Path) -> dict[str, Any]:
    """What stands in the handler's file."""
    return {
        "affiliates": [
            {
                "name": company,
                "url": f"{url}/v2",
                "domain": COMPANIES[company].domain,
                "token_file": str(keys[company].token),
                "authorities_file": str(authorities),
                "extension_identities": {"phone": PHONE},
                "first_check_seconds": _FIRST_CHECK,
                "longest_check_seconds": _LONGEST_CHECK,
            }
            for company, url in urls.items()
        ]
    }


def rows(directories: Iterable[Path]) -> Rows:
    """Every record of both stores: `company.table:id`. Requests that came in are no records of theirs."""
    return {
        f"{directory.name}.{ref}": row
        for directory in directories
        for ref, row in snapshots.file_rows(directory / FILE).items()
        if not ref.startswith(f"{REQUESTS}:")
    }
