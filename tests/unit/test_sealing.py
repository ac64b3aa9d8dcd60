"""Sealed texts and canonical bytes: what we write by the shortest way is what the libraries made for it write."""

import base64
import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import OctKey

from keshi.runtime.sealing import Key, SealBroken
from keshi.schemas.base import MAX_SAFE_INTEGER, canonical

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
TREES = st.recursive(LEAVES, lambda t: st.lists(t, max_size=4) | st.dictionaries(TEXT, t, max_size=4), max_leaves=12)


@given(TREES)
def test_canonical_bytes_are_those_of_rfc_8785(tree: object) -> None:
    assert canonical(tree) == rfc8785.dumps(tree)


@pytest.mark.parametrize("tree", [2**53, -(2**53), [{"a": 2**60}], float("nan"), "\ud800", {"\ud800": 1}])
def test_what_has_no_canonical_form_is_refused(tree: object) -> None:
    with pytest.raises((rfc8785.CanonicalizationError, UnicodeEncodeError)):
        canonical(tree)


@given(TREES)
def test_a_sealed_text_is_a_compact_jwe_that_others_open_and_make(tree: object) -> None:
    key = Key.random()
    theirs = OctKey.import_key(key.raw)
    found = jwe.decrypt_compact(key.seal(tree), theirs, algorithms=["dir", "A256GCM"])
    assert json.loads(found.plaintext or b"") == tree
    made = jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, json.dumps(tree).encode(), theirs)
    assert key.open(made) == tree


@given(st.integers(min_value=0), st.sampled_from("AQgw_.-"))
def test_any_change_of_a_sealed_text_is_seen(place: int, other: str) -> None:
    key = Key.random()
    sealed = key.seal(["a", 1])
    place %= len(sealed)
    changed = sealed[:place] + other + sealed[place + 1 :]
    if changed != sealed:
        with pytest.raises(SealBroken):
            key.open(changed)


@pytest.mark.parametrize(
    "header", [{"alg": "dir", "enc": "A128GCM"}, {"alg": "dir", "enc": "A256GCM", "kid": "1"}, {"alg": "A256KW"}]
)
def test_the_header_of_a_sealed_text_chooses_nothing(header: dict[str, str]) -> None:
    key = Key.random()
    _, rest = key.seal("x").split(".", 1)
    first = json.dumps(header).encode()
    with pytest.raises(SealBroken):
        key.open(f"{base64.urlsafe_b64encode(first).rstrip(b'=').decode()}.{rest}")


@pytest.mark.parametrize("text", ["", ".", "....", "a.b.c.d.e", "é", "x" * 10_000, "....."])
def test_what_is_no_sealed_text_breaks_in_one_way(text: str) -> None:
    with pytest.raises(SealBroken):
        Key.random().open(text)
