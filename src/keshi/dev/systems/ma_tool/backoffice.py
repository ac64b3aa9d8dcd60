"""What the MA tool does by itself: deletes by job, sends what is due, hears from its partners."""

from __future__ import annotations

import sqlite3
from threading import Event, Thread
from typing import TYPE_CHECKING

from keshi.dev.systems.serving import log

if TYPE_CHECKING:
    from keshi.dev.systems.ma_tool import Pace
    from keshi.dev.systems.ma_tool.jobs import Jobs
    from keshi.dev.systems.ma_tool.store import Store


class Backoffice:
    """One thread; what it was at when it ended, the next one goes on with.

    Args:
        store: the records.
        jobs: that delete.
        pace: how fast it is.
    """

    def __init__(self, store: Store, jobs: Jobs, pace: Pace) -> None:
        self._store = store
        self._jobs = jobs
        self._pace = pace
        self._wake = Event()
        self._ended = Event()
        self._thread = Thread(target=self._run, name="backoffice")
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def close(self) -> None:
        """Ends after what it is at."""
        self._ended.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.clear()
            try:
                worked = self._round()
            except sqlite3.Error as error:
                log(error=type(error).__name__)  # the next round tries again: nothing was changed
                worked = False
            if not worked:
                self._wake.wait(self._pace.tick_ms / 1000)

    def _round(self) -> bool:
        sent = self._store.send_due()
        if sent:
            log(sent=sent)
        heard = self._store.partners_answer(self._pace.partner_ms)
        if self._pace.job_ms and self._jobs.pending():
            self._ended.wait(self._pace.job_ms / 1000)
            if self._ended.is_set():
                return False
        return self._jobs.step() or bool(heard)
