"""Two companies that use the customers' data jointly, each a process of its own with an OpenDSR 2.0 API and a store.

Run one by `python -m keshi.dev.systems.affiliates --company sakura_logistics --data DIR --token-file F --key F
--certificate F`.

What they are like, and whoever asks them has to bear:

- Nobody from outside can search them. They take a request for erasure, say when they expect to be done, and are asked
  how far it is; they answer by themselves a while later, and until then nothing is sure.
- A member is found by e-mail address, customer number, or telephone number. OpenDSR has no word for the last one: it
  comes in their extension. A request without any identity that they know is refused.
- They say how many records they deleted, and keep of a request that is over only its id, its times and that number.
- Each answer is signed. How each behaves can be switched while it runs (see `behaviour`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PHONE: Final = "phone"
"""How both call a telephone number in their extension."""


@dataclass(frozen=True, slots=True)
class Company:
    """One of them: the domain that it signs for, the letter of its ids, what it keeps about its members."""

    domain: str
    letter: str
    kind: str


COMPANIES: Final[Mapping[str, Company]] = {
    "sakura_logistics": Company("opendsr.sakura-logistics.example", "S", "delivery"),
    "oceania_loyalty": Company("opendsr.oceania-loyalty.example", "L", "points"),
}
"""By the name of their category in the inventory. The first is in Japan, the second in Australia."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Files of one company: the token that callers bear, its private key, and the chain of its certificate."""

    token: Path
    key: Path
    certificate: Path


def command(company: str, data: Path, port: int, keys: Keys, *, slow_ms: int = 0) -> list[str]:
    """The command line that runs one; port 0 takes a free one (see the first line of output)."""
    module = [sys.executable, "-m", "keshi.dev.systems.affiliates", "--company", company]
    options = ["--data", str(data), "--port", str(port), "--slow-ms", str(slow_ms)]
    files = ["--token-file", str(keys.token), "--key", str(keys.key), "--certificate", str(keys.certificate)]
    return [*module, *options, *files]
