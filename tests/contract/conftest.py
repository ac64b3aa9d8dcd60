"""The contract suites run against real parts; these are the reference systems, as `tests/systems` runs them."""

from systems.conftest import (
    RunningBilling,
    RunningCrm,
    RunningRecordings,
    RunningS3,
    billing_database,
    crm_client,
    crm_process,
    empty_recordings,
    everybody,
    recordings,
    recordings_index,
    s3_server,
)

__all__ = [
    "RunningBilling",
    "RunningCrm",
    "RunningRecordings",
    "RunningS3",
    "billing_database",
    "crm_client",
    "crm_process",
    "empty_recordings",
    "everybody",
    "recordings",
    "recordings_index",
    "s3_server",
]
