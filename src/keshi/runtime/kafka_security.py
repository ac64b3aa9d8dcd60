"""How brokers are let know who we are, and what to set right when they do not let us in.

kafka-python (3.0.12) tries on until its time is over, whatever a broker said, and then says only that the time is over.
"""

import ssl
from collections.abc import Mapping
from typing import Any, Final

from kafka.errors import (
    IllegalSaslStateError,
    InvalidReceiveError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from keshi.runtime.settings import ConfigurationError, KafkaSettings

_DISCONNECTED: Final = "socket disconnected"
_STOP_MS: Final = 5_000


def tls_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """What brokers' certificates are checked by and ours is shown from, where the protocol has TLS.

    Raises:
        ConfigurationError: a file cannot be used.
    """
    if not settings.security_protocol.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile and str(settings.ssl_cafile))
    except OSError:
        raise ConfigurationError("KESHI_KAFKA_SSL_CAFILE: there is no readable CA file at this path") from None
    if settings.ssl_certfile:
        try:
            # Without a password OpenSSL would ask for one at the terminal.
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password="")
        except OSError:
            raise ConfigurationError(
                "KESHI_KAFKA_SSL_CERTFILE and KESHI_KAFKA_SSL_KEYFILE: expected files in PEM with a certificate and "
                "its key, without a password"
            ) from None
    return context


def sasl_login(settings: KafkaSettings) -> tuple[str, str] | None:
    """Name and password, where the protocol has SASL.

    Raises:
        ConfigurationError: one of them is not set.
    """
    if not settings.security_protocol.startswith("SASL"):
        return None
    if not settings.sasl_username or not settings.sasl_password:
        raise ConfigurationError(
            f"KESHI_KAFKA_SASL_USERNAME and KESHI_KAFKA_SASL_PASSWORD: {settings.security_protocol} needs both"
        )
    return settings.sasl_username, settings.sasl_password.get_secret_value()


class NotLetInError(KafkaConnectionError):  # type: ignore[misc] # kafka-python is untyped
    """A broker is there, and does not let us in. Its text says, in one line, which setting to look at."""


def client(**config: Any) -> KafkaNetClient:
    """For kafka-python's `kafka_client`."""
    net = NetworkSelector(**config)
    return KafkaNetClient(net=net, manager=_Manager(net, **config))


class _ToTheEnd:
    """Hands on what came together with the end of a connection.

    Without this kafka-python drops it: a broker says that it does not know a user, and hangs up.
    """

    def _sock_recv(self) -> tuple[bytes, KafkaError | None]:
        data, error = super()._sock_recv()  # type: ignore[misc] # of the classes below
        return data, None if data else error  # the end is still there at the next reading


class _Plain(_ToTheEnd, KafkaTCPTransport):  # type: ignore[misc] # kafka-python is untyped
    pass


class _Tls(_ToTheEnd, KafkaSSLTransport):  # type: ignore[misc] # as above
    pass


class _Manager(KafkaConnectionManager):  # type: ignore[misc] # kafka-python is untyped
    """Connections, and what became of the first ones."""

    _why: str | None = None

    def bootstrap(self, timeout_ms: int | None = None, refresh: bool = True) -> None:  # noqa: FBT001, FBT002 - as there
        try:
            super().bootstrap(timeout_ms, refresh)
        except KafkaError as e:
            # Nobody gets hold of a client whose making fails: its thread and its connections would stay.
            self._net.stop(_STOP_MS)
            self.close()
            self._net.close()
            raise (NotLetInError(self._why) if self._why else e) from None
        self._auth_failures.clear()  # another broker has let us in

    async def _build_transport(self, node: Any, *given: Any, **more: Any) -> Any:
        transport = await super()._build_transport(node, *given, **more)
        transport.__class__ = _Tls if self.ssl_enabled else _Plain  # kafka-python makes it itself
        return transport

    async def _connect(self, node: Any, conn: Any, *given: Any, **more: Any) -> None:
        failed: list[BaseException] = []
        conn.init_future.add_errback(failed.append)
        await super()._connect(node, conn, *given, **more)
        if self.bootstrapped:
            return
        error = _cause(failed[0]) if failed else None
        why = _why(error, self.config)
        if why:
            self._why = f"Kafka at {node.host}:{node.port} {why}"
        if isinstance(error, _FINAL) or _alerted(error):
            # Makes the next try fail at once: kafka-python's own means, which it never comes to use itself.
            self._auth_failures[node.node_id] = failed[0]


_FINAL: Final = (
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
    IllegalSaslStateError,
    InvalidReceiveError,
    ssl.SSLCertVerificationError,
)
"""What no further try would change."""


def _cause(error: BaseException) -> BaseException:
    """The error of TLS that kafka-python has made one of its own of."""
    told = (*error.args[:1], error.__context__)
    return next((e for e in told if isinstance(e, ssl.SSLError)), error)


def _alerted(error: BaseException | None) -> bool:
    """Whether the other side says that there is something wrong with our certificate."""
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    return "ALERT" in reason and "CERT" in reason


def _why(error: BaseException | None, config: Mapping[str, Any]) -> str | None:
    """What to set right; of no error at all, where a connection was made and nothing came of it."""
    protocol = (
        f"answers, but not by {config['security_protocol']}: see KESHI_KAFKA_SECURITY_PROTOCOL, or wait until it has "
        f"started"
    )
    match error:
        case SaslAuthenticationFailedError():
            return (
                f"does not know this user or password by {config['sasl_mechanism']}: see KESHI_KAFKA_SASL_USERNAME, "
                f"KESHI_KAFKA_SASL_PASSWORD and KESHI_KAFKA_SASL_MECHANISM"
            )
        case UnsupportedSaslMechanismError():
            return f"does not take {config['sasl_mechanism']}: see KESHI_KAFKA_SASL_MECHANISM"
        case ssl.SSLCertVerificationError():
            return (
                f"has a certificate that is not to be trusted ({error.verify_message}): see KESHI_KAFKA_SSL_CAFILE for "
                f"its CA, and KESHI_KAFKA_BOOTSTRAP for its name"
            )
        case ssl.SSLError() if _alerted(error):
            return "refuses our certificate: see KESHI_KAFKA_SSL_CERTFILE and KESHI_KAFKA_SSL_KEYFILE"
        case None | ssl.SSLError() | IllegalSaslStateError() | InvalidReceiveError():
            return protocol
        case _:
            return protocol if _DISCONNECTED in str(error) else None
