"""Keys that were opened a moment ago: found by what stands in the ledger alone, few, and not for long."""

import time

import pytest

from keshi.orchestrator.keys import Keys, OpenKeys
from keshi.runtime.sealing import Key, KeyRing, SealBroken, WrappedKey

KEYS = Keys(KeyRing("k1", {"k1": Key(b"\x07" * 32)}), Key(b"\x08" * 32))


def test_a_key_is_opened_once_for_all_who_ask_for_it() -> None:
    key, wrapped = KEYS.new("one")
    opened = OpenKeys(KEYS)
    first = opened.open(wrapped, "one")
    assert first.raw == key.raw
    assert opened.open(WrappedKey(*wrapped), "one") is first


def test_an_open_key_is_found_by_its_own_wrapped_form_and_owner_alone() -> None:
    _, wrapped = KEYS.new("one")
    _, another = KEYS.new("one")
    opened = OpenKeys(KEYS)
    opened.open(wrapped, "one")
    changed = wrapped._replace(wrapped=wrapped.wrapped[:-1] + bytes([wrapped.wrapped[-1] ^ 1]))
    for asked, owner in ((wrapped, "two"), (changed, "one")):
        with pytest.raises(SealBroken):
            opened.open(asked, owner)
    assert opened.open(another, "one").raw != opened.open(wrapped, "one").raw


def test_no_more_keys_are_remembered_than_two_generations_have() -> None:
    opened = OpenKeys(KEYS, most=3)
    known = [(f"{n}", *KEYS.new(f"{n}")) for n in range(10)]
    for owner, key, wrapped in known * 2:
        assert opened.open(wrapped, owner).raw == key.raw
        assert len(opened) <= 6


def test_a_key_is_forgotten_though_nobody_asks_again() -> None:
    opened = OpenKeys(KEYS, seconds=0.01)
    for _ in range(2):
        opened.open(KEYS.new("one")[1], "one")
        until = time.monotonic() + 10
        while len(opened):
            assert time.monotonic() < until, "it is still remembered"
            time.sleep(0.005)


def test_nothing_of_a_key_is_shown() -> None:
    key, wrapped = KEYS.new("one")
    opened = OpenKeys(KEYS)
    opened.open(wrapped, "one")
    shown = repr((opened, key, KEYS, KEYS.manifests(key, "billing")))
    assert "b'" not in shown
    assert key.raw.hex() not in shown
