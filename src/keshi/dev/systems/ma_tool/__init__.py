"""MA tool: marketing automation, a system of its own process with an HTTP API and a store on disk.

Run it by `python -m keshi.dev.systems.ma_tool --data DIR --port N --token-file F`.

What its owner decided, and whoever erases from it has to respect:

- Behaviour is kept by cookie. What a visitor did before the cookie was linked to a contact stays under the cookie
  alone, and no contact leads to it. When a contact is deleted its cookies stay, unlinked: find all before deleting any.
- Records are deleted by jobs: one is asked for, works by itself, and is asked after. A contact that still has list
  memberships or scheduled mails outside the job makes it fail. Before a contact goes, the ad partners are told to take
  it from their lists, and the job waits until they have.
- Contacts, cookies and mails are suppressed under a marker of who asked; what hangs on them follows. A suppressed
  contact gets no mail, is given to no partner, and nothing it does is collected. Mails are held back, not deleted. Who
  holds the marker lifts it; `manual` is the marker of the company's own people.
- Contacts and cookies may be taken out of what ad partners are given, under a marker as well. Partners are told.
- So many calls a second; then 429 with `Retry-After`.
- Of a job that is done its reference and its counts are kept, and no record's name.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast it is.

    Attributes:
        calls_per_second: what it takes over time.
        burst: and at once.
        job_ms: a job waits so long before each part of it.
        partner_ms: an ad partner takes so long to take a contact from its list.
        tick_ms: how often it looks for mails to send.
        slow_ms: each change waits so long before it is made.
    """

    calls_per_second: int = 200
    burst: int = 400
    job_ms: int = 0
    partner_ms: int = 0
    tick_ms: int = 500
    slow_ms: int = 0


def command(data: Path, port: int, token_file: Path, pace: Pace | None = None) -> list[str]:
    """The command line that runs it; port 0 takes a free one (see the first line of output)."""
    module = [sys.executable, "-m", "keshi.dev.systems.ma_tool"]
    options = ["--data", str(data), "--port", str(port), "--token-file", str(token_file)]
    paced = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(pace or Pace()).items()]
    return [*module, *options, *paced]
