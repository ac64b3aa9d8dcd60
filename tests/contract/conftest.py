"""The contract suites run against real parts; these are the reference systems, as `tests/systems` runs them."""

from systems.conftest import (
    RunningBilling,
    RunningCrm,
    billing_database,
    crm_client,
    crm_process,
    everybody,
)

__all__ = ["RunningBilling", "RunningCrm", "billing_database", "crm_client", "crm_process", "everybody"]
