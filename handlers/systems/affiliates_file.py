"""The file that says which affiliates there are and how each is asked (`KESHI_AFFILIATES_FILE`, YAML or JSON)."""

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from keshi.handlers.connectors.certificates import Authorities, CertificateRefused
from keshi.handlers.connectors.opendsr import OpenDsr, Processor
from keshi.handlers.connectors.rest import Rest
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.base import Name
from keshi.schemas.identifiers import IdentifierType
from keshi.schemas.inventory import Inventory

SETTING: Final = "KESHI_AFFILIATES_FILE"
MAX_BYTES: Final = 1_000_000
MAX_AFFILIATES: Final = 100
HERE: Final = frozenset({"127.0.0.1", "localhost", "::1"})
Path_ = Annotated[Path, Field(strict=False)]
Seconds = Annotated[int, Field(ge=1, le=604_800)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Tls(_Part):
    """Whom we trust for the connection, and what we show; relative paths start at the file."""

    authorities_file: Path_ | None = None
    certificate_file: Path_ | None = None
    key_file: Path_ | None = None


class Affiliate(_Part):
    """One company.

    Attributes:
        name: As the inventory calls its category.
        url: Base address, with the major version in it.
        domain: That it signs for (`X-OpenDSR-Processor-Domain`).
        token_file: Holds the bearer token.
        authorities_file: Whom to trust for its signing certificate. Without it signatures are not checked.
        identities: Our types of identifiers as OpenDSR calls them (5.1).
        extension_identities: Those that OpenDSR has no word for, as its own extension calls them (7.1.2).
        regulation: Sent where the request rests neither on GDPR nor on CCPA; agree on it with the affiliate.
        first_check_seconds: Until the first look; each next one waits twice as long,
        longest_check_seconds: but never longer than this.
    """

    name: Name
    url: Annotated[str, Field(pattern=r"^https?://[^/\s]\S*$", max_length=500)]
    domain: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")]
    token_file: Path_
    authorities_file: Path_ | None = None
    identities: dict[IdentifierType, Name] = Field(
        default={"email": "email", "customer_id": "controller_customer_id"}, max_length=50
    )
    extension_identities: dict[IdentifierType, Annotated[str, Field(max_length=100)]] = Field(default={}, max_length=50)
    regulation: Annotated[str, Field(pattern=r"^[a-z]{2,20}$")] = "appi"
    first_check_seconds: Seconds = 60
    longest_check_seconds: Seconds = 21_600
    tls: Tls = Tls()

    @model_validator(mode="after")
    def _sound(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme != "https" and parts.hostname not in HERE:
            raise ValueError("url: identifiers of people travel there, so it has to be https://")
        if self.longest_check_seconds < self.first_check_seconds:
            raise ValueError("longest_check_seconds: may not be less than first_check_seconds")
        if self.tls.key_file and not self.tls.certificate_file:
            raise ValueError("tls: a key_file without a certificate_file")
        if not (self.identities or self.extension_identities):
            raise ValueError("identities: by which types of identifiers is a person known there?")
        return self

    def processor(self, base: Path) -> OpenDsr:
        """What speaks with it.

        Args:
            base: Where relative paths start.

        Raises:
            ConfigurationError: a file that it names cannot be used.
        """
        try:
            token = (base / self.token_file).read_text(encoding="ascii").strip()
            trusted = Authorities.of(base / self.authorities_file) if self.authorities_file else None
            tls = self._context(base)
        except (OSError, UnicodeDecodeError, CertificateRefused) as error:
            raise _wrong(f"a file of {self.name} cannot be used ({type(error).__name__}): {_file(error)}") from None
        if not token:
            raise _wrong(f"token_file of {self.name} is empty")
        rest = Rest(self.url, token, setting=SETTING, tls=tls)
        return OpenDsr(rest, Processor(self.url, self.domain, trusted))

    def _context(self, base: Path) -> ssl.SSLContext:
        given = self.tls
        if not self.url.startswith("https:"):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and is not needed on this machine
        context = ssl.create_default_context(cafile=base / given.authorities_file if given.authorities_file else None)
        if given.certificate_file:
            context.load_cert_chain(base / given.certificate_file, base / given.key_file if given.key_file else None)
        return context


class _File(_Part):
    affiliates: Annotated[tuple[Affiliate, ...], Field(min_length=1, max_length=MAX_AFFILIATES, strict=False)]

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [a.name for a in self.affiliates]
        if len(set(names)) != len(names):
            raise ValueError("an affiliate is named twice")
        return self


def read_affiliates(path: Path | None) -> tuple[Affiliate, ...]:
    """What stands in the file.

    Raises:
        ConfigurationError: there is none, or what is wrong in it, with its place.
    """
    if path is None:
        raise ConfigurationError(f"{SETTING} is not set: name the file that says which affiliates there are")
    try:
        return _File.model_validate(_yaml(path)).affiliates
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _wrong(f"{where}: {first['msg']}" if where else first["msg"]) from None


def hold_against(path: Path, system: str, names: Iterable[str]) -> None:
    """See that file and inventory speak of the same affiliates.

    Raises:
        ConfigurationError: with what one has and the other has not.
    """
    try:
        inventory = Inventory.model_validate(_yaml(path), strict=False)
        wanted = {c.name for c in inventory.system(system).categories}
    except ValidationError:
        raise ConfigurationError(f"{path} is no inventory: run `keshi inventory check`") from None
    except KeyError:
        raise ConfigurationError(f"{path} has no system {system}: add it, or do not run its handler") from None
    there = set(names)
    if lacking := sorted(wanted - there):
        raise _wrong(f"it lacks {lacking[0]}, which the inventory lists under {system}")
    if unknown := sorted(there - wanted):
        raise _wrong(f"{unknown[0]} is no category of {system} in the inventory ({path})")


def _yaml(path: Path) -> Any:
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise ConfigurationError(f"{path} is longer than {MAX_BYTES} bytes")
        return yaml.safe_load(data)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__})") from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ConfigurationError(f"{path} is no YAML{where}") from None


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(f"{SETTING}: {what}")


def _file(error: Exception) -> str:
    return str(getattr(error, "filename", None) or error)
