"""How often Python looks for cycles of garbage in a process that runs for long."""

import gc
from typing import Final

_NEW_OBJECTS: Final = 20_000
"""Python's own 700 is passed by a single list of tasks: each cost a look at all of its objects, in all a tenth of the
time. What has no cycle is freed at once in any case."""


def settle() -> None:
    """To be called once, when everything is imported: that stays for good, and is left out from here on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 10, 10)
