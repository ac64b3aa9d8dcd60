"""Sealed texts and canonical bytes: what we write by the shortest way is what the libraries made for it write."""

import base64
import hmac
import json
from contextlib import suppress

import pytest
import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import OctKey

from keshi.runtime.sealing import Key, KeyRing, Mac, SealBroken, WrappedKey, _base64, _unbase64
from keshi.schemas.base import MAX_SAFE_INTEGER, canonical

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
DERIVED = "280381d0eed1d9e547617373e58a10b9d9e77eb2fa601409b755c911212be451"
SEALED = (
    "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..4O0OABHMYG1kQ6hB."
    "MeLOnGlmf3FqvwtT9EEaQ25EIc6A0wUdJWfEdmyP0XS2wh-ZHItMIlerJQ.g2s22w4ip83P-Rt86HvDOg"
)
WRAPPED = "42f9747091b2de7a2487d1975b11afa7a44cdbf74f49eff1c87626ee0c3aa9aa5017b573a1e2218f"
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


@given(st.binary(min_size=32, max_size=32), st.text(max_size=40), st.binary(max_size=300))
def test_what_is_made_ready_once_gives_what_the_libraries_give(raw: bytes, purpose: str, text: bytes) -> None:
    """The derivation is one of RFC 5869, also when one went before; the tag is one of RFC 2104."""
    key = Key(raw)
    tag = Mac(key)
    for _ in range(2):
        theirs = HKDF(hashes.SHA256(), len(raw), salt=None, info=b"keshi/1/" + purpose.encode())
        assert key.derive(purpose).raw == theirs.derive(raw)
        assert tag.hex(text) == hmac.new(raw, text, "sha256").hexdigest()


def test_what_was_sealed_long_ago_is_opened_still() -> None:
    """Keys come out as they always did, and a text of the first version opens under them."""
    key = Key(bytes(range(32)))
    assert key.derive("system/billing").raw.hex() == DERIVED
    assert key.derive("system/billing").open(SEALED) == [{"type": "customer_id", "value": "C-000417"}]
    ring = KeyRing("k1", {"k1": key})
    assert ring.unwrap(WrappedKey("k1", bytes.fromhex(WRAPPED)), "4711").raw == bytes(32)


@given(st.text("ABQgwz09_-+/=\n ", max_size=9))
def test_bytes_have_one_text(text: str) -> None:
    """Whatever is read is what is written for it: no bit is left over, nothing is skipped."""
    with suppress(SealBroken, ValueError):
        assert _base64(_unbase64(text.encode())) == text.encode()


@pytest.mark.parametrize("change", [("-", "+"), ("_", "/")])
def test_one_alphabet_is_taken(change: tuple[str, str]) -> None:
    key = Key.random()
    sealed = next(s for s in iter(lambda: key.seal("x"), None) if change[0] in s)
    with pytest.raises(SealBroken):
        key.open(sealed.replace(*change))
