"""Marked identifiers, and a scan of bytes that finds them in any usual writing."""

import base64
import secrets
from collections.abc import Iterator
from urllib.parse import quote


class Mark:
    """Identifiers that stand nowhere else in the world."""

    def __init__(self, token: str | None = None) -> None:
        token = token or secrets.token_hex(6)
        digits = f"{int(token, 16) % 10**8:08d}"
        self.email = f"mark-{token}@marked.example"
        self.customer_id = f"C-MARK-{token}"
        self.phone = f"+8190{digits}"

    def identifiers(self) -> list[dict[str, str]]:
        """As a command carries them; the e-mail address with capitals."""
        return [
            {"type": "email", "value": self.email.replace("mark-", "Mark-")},
            {"type": "customer_id", "value": self.customer_id},
            {"type": "phone", "value": self.phone},
        ]

    def needles(self) -> Iterator[bytes]:
        """All writings, in lower case; base64 as it is, in its three alignments, both alphabets."""
        local = "0" + self.phone.removeprefix("+81")
        spaced = f"{local[:3]}-{local[3:7]}-{local[7:]}"
        values = [self.email, self.customer_id, self.phone, self.phone[1:], local, spaced]
        for value in values:
            for written in {value, value.lower(), value.upper(), value.replace("mark-", "Mark-")}:
                raw = written.encode()
                yield raw
                yield raw.hex().encode()
                yield quote(written, safe="").encode()
                yield from _base64(raw)
                yield written.encode("utf-16-le")

    def found_in(self, haystack: bytes) -> list[bytes]:
        """The writings that stand in these bytes."""
        low = haystack.lower()
        return [n for n in set(self.needles()) if n in haystack or (n.lower() in low and not is_base64(n))]


def _base64(raw: bytes) -> Iterator[bytes]:
    for shift in range(3):
        padded = b"\0" * shift + raw
        whole = padded[: len(padded) - len(padded) % 3]
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The first group holds the padding of the shift: what follows it is the same wherever the value stands.
            yield encode(whole)[4:] if shift else encode(whole)


def is_base64(needle: bytes) -> bool:
    """Whether the case of its letters matters."""
    return needle.isalnum() and needle != needle.lower() and b"@" not in needle
