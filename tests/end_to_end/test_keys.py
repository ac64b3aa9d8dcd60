"""Changing the key-encryption key of a ledger that is in use."""

import pytest
from pydantic import SecretStr

from keshi.orchestrator.bootstrap import open_keys
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.ledger.migrate import migrate
from keshi.orchestrator.ledger.postgres import PostgresLedger, connect
from keshi.runtime.sealing import SealBroken, key_ring, new_key_line
from keshi.runtime.settings import ConfigurationError, KeySettings


def test_a_new_key_takes_over_and_the_old_one_opens_what_it_had_wrapped(database: str) -> None:
    """The ledger's secret is wrapped anew at once; a request's key stays under the one it was wrapped under."""
    engine = connect(database)
    migrate(engine)
    ledger = PostgresLedger(engine)
    old, new = new_key_line("kek-1"), new_key_line("kek-2")

    def keys(*lines: str) -> Keys:
        return open_keys(key_ring(KeySettings(kek=SecretStr("\n".join(lines)))), ledger)

    first = keys(old)
    _, wrapped = first.new("R1")
    both = keys(new, old)
    assert both.open(wrapped, "R1")
    with pytest.raises(SealBroken):
        both.open(wrapped, "R2")
    assert both.root.raw == keys(new).root.raw
    with pytest.raises(ConfigurationError, match="kek-2 is missing"):
        keys(old)
    with pytest.raises(ConfigurationError, match="does not open this ledger"):
        keys(new_key_line("kek-2"))
    ledger.close()
