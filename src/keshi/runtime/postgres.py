"""Why PostgreSQL does not let us in. libpq says so in words alone, which may repeat the connection string."""

from typing import Final

_SAYINGS: Final = (
    ("certificate verify failed", "its certificate is signed by none of sslrootcert"),
    ("does not match host name", "its certificate is for another host"),
    ("root certificate file", "there is no CA file where sslrootcert says"),
    ("could not read root certificate", "there is no CA file where sslrootcert says"),
    ("does not support SSL", "it has no TLS, and sslmode wants it"),
    ("invalid sslmode", "there is no such sslmode"),
    ("no encryption", "it lets this user in by TLS alone, if at all"),
    ("certificate required", "it wants a certificate: sslcert and sslkey"),
    ("valid client certificate", "it wants a certificate: sslcert and sslkey"),
    ("password authentication failed", "it does not know this user or password"),
    ("no password supplied", "it wants a password"),
)


def refusal(error: BaseException | None) -> str | None:
    """What is wrong with how we come, in words of our own; None where it is something else, such as nobody there."""
    text = str(error)
    return next((ours for theirs, ours in _SAYINGS if theirs in text), None)
