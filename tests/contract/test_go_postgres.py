"""`unwrap` and `begin` on a real PostgreSQL server."""

from collections.abc import Iterator

import pytest

from contract.go_suite import GoSuite
from contract.stores import Postgres


class TestGoOnPostgres(GoSuite):
    """See `GoSuite`."""

    @pytest.fixture
    def store(self, database: str) -> Iterator[Postgres]:
        store = Postgres(database)
        store.migrate()
        yield store
        store.close()
