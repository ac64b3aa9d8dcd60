"""CRM: a system of its own process with an HTTP API and a store on disk.

Run it by `python -m keshi.dev.systems.crm --data DIR --port N --token-file F`.

What its owner decided, and whoever erases from it has to respect:

- Contacts, business cards and activities are records of their own; deleting one deletes nothing else. A
  contact that still has cards or activities is not deleted (409 `has_children`).
- A duplicate is a contact linked to another by `duplicate_of`. When the other one is deleted the link is gone
  too, and with it the way to the duplicate: find all before deleting any.
- Use is suspended record by record, under a marker of who asked. Only who holds the same marker lifts it;
  `manual` is the marker of the company's own people.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def command(data: Path, port: int, token_file: Path, *, slow_ms: int = 0) -> list[str]:
    """The command line that runs the CRM; port 0 takes a free one (see the first line of output)."""
    module = [sys.executable, "-m", "keshi.dev.systems.crm"]
    options = ["--data", str(data), "--port", str(port), "--token-file", str(token_file)]
    return [*module, *options, "--slow-ms", str(slow_ms)]
