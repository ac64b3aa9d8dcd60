"""What deciding may look at besides the state and the input: plans, policy, leases. No clock, no I/O."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from keshi.runtime.settings import OrchestratorSettings
from keshi.schemas.inventory import Plan
from keshi.schemas.tasks import Mode


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of retry and time, from the settings."""

    lease_seconds: float = 10
    max_attempts: int = 8
    max_acts: int = 3
    retry_schedule: tuple[float, ...] = (60, 300, 1800, 7200, 21600, 86400)
    silence_seconds: float = 60
    recheck_seconds: float = 15
    held_reminder_seconds: float = 86_400
    commands_days: float = 7

    @classmethod
    def of(cls, settings: OrchestratorSettings) -> "Policy":
        """The policy that the settings ask for."""
        return cls(
            lease_seconds=settings.lease_seconds,
            max_attempts=settings.max_attempts,
            max_acts=settings.max_acts,
            retry_schedule=settings.retry_schedule,
            silence_seconds=settings.silence_seconds,
            recheck_seconds=settings.recheck_seconds,
            commands_days=settings.commands_retention_days,
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """One go that was given, with the evidence that was taken before it.

    `until` is its end after the last renewal; `counts` and `digest` are of the union at that time. A `begin`
    that got no go (over the limit) has evidence and no lease: `granted_at` is None then.
    """

    begin_id: str
    lease_id: str
    system: str
    attempt: int
    mode: Mode
    at: datetime
    granted_at: datetime | None
    until: datetime | None
    digest: str
    counts: Mapping[str, int]
    searched: tuple[str, ...] = ()
    learned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def alive(self, now: datetime) -> bool:
        """Whether somebody may be acting under it."""
        return self.until is not None and self.until > now

    def in_the_way(self, attempt: int, now: datetime) -> bool:
        """Whether this attempt has to wait for it: somebody may be acting, or trying the same attempt."""
        return self.alive(now) and (self.mode is Mode.ACT or self.attempt == attempt)


@dataclass(frozen=True, slots=True)
class Leases:
    """All leases of one request, by system, oldest first."""

    of: Mapping[str, tuple[Lease, ...]] = field(default_factory=dict)

    def newest(self, system: str) -> Lease | None:
        """The lease that a report has to name."""
        return next((x for x in reversed(self.of.get(system, ())) if x.granted_at), None)

    def newest_evidence(self, system: str) -> Lease | None:
        """The latest evidence, with or without a go."""
        return max(self.of.get(system, ()), key=lambda x: x.at, default=None)

    def acts(self, system: str) -> int:
        """How many acts were entered."""
        return sum(1 for x in self.of.get(system, ()) if x.granted_at and x.mode is Mode.ACT)

    def unreported(self, system: str, attempt: int, since: datetime | None) -> int:
        """How many acts of this attempt were entered since a person decided: a report of one would have ended it."""
        return sum(
            1
            for x in self.of.get(system, ())
            if x.granted_at and x.mode is Mode.ACT and x.attempt == attempt and (since is None or x.granted_at > since)
        )


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of one decision."""

    policy: Policy
    plan: Callable[[str], Plan]
    lease_secret: Callable[[str], str]
    leases: Leases = Leases()
    elders: tuple[str, ...] = ()
    suspensions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    number: Callable[[], int] = lambda: 0
    passed: frozenset[tuple[str, int]] = frozenset()
