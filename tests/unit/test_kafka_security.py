"""What kafka-python is given, and what it leaves undone."""

import socket
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from kafka.net.transport import KafkaTCPTransport

from keshi.runtime.kafka import client_config
from keshi.runtime.kafka_security import _Plain, tls_context
from keshi.runtime.settings import ConfigurationError, KafkaSettings
from kit.authority import Authority


@pytest.mark.parametrize(
    ("kind", "read"), [(_Plain, [(b"no", True), (b"", False)]), (KafkaTCPTransport, [(b"no", False)])]
)
def test_what_came_with_the_end_of_a_connection_is_handed_on(kind: Any, read: list[tuple[bytes, bool]]) -> None:
    """kafka-python by itself tells of the end alone, and drops the bytes with it: the refusal of a login."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(b"no")
        theirs.shutdown(socket.SHUT_WR)
        transport = kind(None, ours)
        found = [transport._sock_recv() for _ in read]
    assert [(data, error is None) for data, error in found] == read


def test_a_client_certificate_is_read_without_anybody_at_a_terminal(tmp_path: Path) -> None:
    """From one file or two; a key that is not there, or not its own, is named by its setting."""
    authority = Authority(tmp_path)
    one, other = authority.issue("one"), authority.issue("other")
    settings = KafkaSettings(security_protocol="SSL", ssl_cafile=authority.file, ssl_certfile=one)
    assert tls_context(settings)
    assert tls_context(settings.model_copy(update={"ssl_keyfile": one}))
    locked = tmp_path / "locked"
    key = load_pem_private_key(one.read_bytes(), None)
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password")))
    for wrong in (other, locked, authority.file, tmp_path / "nowhere"):
        with pytest.raises(ConfigurationError, match="KESHI_KAFKA_SSL_KEYFILE"):
            tls_context(settings.model_copy(update={"ssl_keyfile": wrong}))


def test_nothing_is_asked_for_that_the_protocol_does_not_need() -> None:
    """A file that is not there does no harm where it is not used."""
    plain = client_config(KafkaSettings(ssl_cafile=Path("/nowhere"), sasl_username="nobody"))
    assert "sasl_mechanism" not in plain
    assert tls_context(KafkaSettings(security_protocol="SASL_PLAINTEXT", ssl_cafile=Path("/nowhere"))) is None
    with pytest.raises(ConfigurationError, match="SASL_PLAINTEXT needs both"):
        client_config(KafkaSettings(security_protocol="SASL_PLAINTEXT", sasl_username="nobody"))
