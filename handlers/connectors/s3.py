"""S3 for handlers: one call within the time of the task, all versions of a key, and what an error asks to be done.

boto3 builds, signs and reads; the sending is ours, so that nothing is sent after the time to act is over, and every
wait and every answer is bounded. Errors leave here as those of `keshi.handlers.errors`, without address, key or body.
"""

import re
import ssl
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
import httpx
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from keshi.handlers.connectors.rest import in_time
from keshi.handlers.contract import Limit, Work
from keshi.handlers.errors import GiveToPerson, HandlerError, Retry, retry_after, slug
from keshi.runtime.settings import ConfigurationError

CALL_SECONDS: Final = 10
"""One call takes no longer, however much time the task has."""
READY_SECONDS: Final = 1
CONNECTIONS: Final = 16
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
MAX_PAGES: Final = 200
"""Of a thousand versions each."""
DELETED_A_CALL: Final = 1000
"""What DeleteObjects takes at most."""
MAX_TAGS: Final = 10
"""Of one version of an object."""
NO_SUCH: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchUpload"})
_NO_LOCK: Final = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest"})
_PASSING: Final = frozenset({"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown"})


class S3Settings(BaseSettings):
    """How a bucket is reached. A handler names its own variables: `env_prefix="KESHI_<SYSTEM>_S3_"`."""

    endpoint: str = ""
    bucket: str = ""
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: SecretStr = SecretStr("")
    secret_key_file: Path | None = None
    cafile: Path | None = None
    path_style: bool = True


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object, or a delete marker. Its representation shows no key."""

    key: str = field(repr=False)
    version_id: str
    marker: bool
    modified: datetime


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload that nobody has completed: its parts are kept all the same."""

    key: str = field(repr=False)
    upload_id: str


class S3:
    """One bucket, shared by the threads of a worker.

    Raises:
        ConfigurationError: a setting is missing or cannot be used.
    """

    def __init__(self, settings: S3Settings) -> None:
        prefix = str(settings.model_config.get("env_prefix", ""))
        if not re.match(r"https?://[^/\s?#]+/?$", settings.endpoint):
            raise ConfigurationError(f"{prefix}ENDPOINT is not set to an address: https://host")
        for name in ("bucket", "access_key"):
            if not getattr(settings, name):
                raise ConfigurationError(f"{prefix}{name.upper()} is not set")
        self._bucket = settings.bucket
        self._current = threading.local()
        # No proxy out of the environment: nobody decided that personal data goes through it.
        self._http = httpx.Client(
            verify=_trusted(settings.cafile, prefix),
            trust_env=False,
            limits=httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=30),
        )
        self._s3 = _session().client(
            "s3",
            endpoint_url=settings.endpoint.rstrip("/"),
            region_name=settings.region,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=_secret(settings, prefix),
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path" if settings.path_style else "virtual"},
                retries={"mode": "standard", "total_max_attempts": 1},  # the worker tries again, and knows how long
                # Checksums beyond what S3 asks for are unknown to many stores that speak its protocol.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        self._s3.meta.events.register("before-send.s3", self._send)

    # --- what a handler needs of a bucket that keeps versions

    def versions(self, task: Work, prefix: str, *, exact: bool = False) -> Iterator[Version]:
        """All versions and delete markers whose key begins so, or is exactly this."""
        for page in self._pages(task, "list_object_versions", prefix, ("KeyMarker", "VersionIdMarker"), exact=exact):
            for kind in ("Versions", "DeleteMarkers"):
                for v in page.get(kind, ()):
                    if not exact or v["Key"] == prefix:
                        yield Version(v["Key"], v["VersionId"], kind == "DeleteMarkers", v["LastModified"])

    def uploads(self, task: Work, prefix: str, *, exact: bool = False) -> Iterator[Upload]:
        """All incomplete uploads whose key begins so, or is exactly this."""
        for page in self._pages(task, "list_multipart_uploads", prefix, ("KeyMarker", "UploadIdMarker"), exact=exact):
            for upload in page.get("Uploads", ()):
                if not exact or upload["Key"] == prefix:
                    yield Upload(upload["Key"], upload["UploadId"])

    def delete(self, task: Work, versions: Iterable[Version]) -> list[Version]:
        """Delete exactly these versions and markers, for good.

        Returns:
            Those that the store refused to delete: they are locked, or the right is missing.

        Raises:
            LeaseEnded: the time is over; some may be deleted.
            Retry: the store was in trouble; some may be deleted.
        """
        wanted, refused = list(versions), []
        for n in range(0, len(wanted), DELETED_A_CALL):
            some = wanted[n : n + DELETED_A_CALL]
            objects = [{"Key": v.key, "VersionId": v.version_id} for v in some]
            task.checkpoint()
            answer = self.call(task, "delete_objects", Delete={"Objects": objects, "Quiet": True}) or {}
            errors = {(e.get("Key"), e.get("VersionId")): str(e.get("Code")) for e in answer.get("Errors", ())}
            if not _PASSING.isdisjoint(errors.values()):
                raise Retry("deletion_incomplete")
            # Some stores leave the version out of an error: then each version of that key counts as refused.
            codes = [errors.get((v.key, v.version_id), errors.get((v.key, None))) for v in some]
            refused += [v for v, code in zip(some, codes, strict=True) if code not in {None, *NO_SUCH}]
        return refused

    def abort(self, task: Work, upload: Upload) -> None:
        """Throw away the parts of an incomplete upload."""
        task.checkpoint()
        self.call(task, "abort_multipart_upload", NO_SUCH, Key=upload.key, UploadId=upload.upload_id)

    def tags(self, task: Work, version: Version) -> dict[str, str] | None:
        """The tags of one version; None where it is gone."""
        answer = self.call(task, "get_object_tagging", NO_SUCH, Key=version.key, VersionId=version.version_id)
        if answer is None:
            return None
        if "TagSet" not in answer:
            raise Retry("answer_incomplete")
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def retag(self, task: Work, version: Version, tags: Mapping[str, str]) -> None:
        """Give one version these tags in place of those that it has.

        Raises:
            GiveToPerson: it would have more than S3 allows.
        """
        if len(tags) > MAX_TAGS:
            raise GiveToPerson("no_room_for_a_tag")
        task.checkpoint()
        where = {"Key": version.key, "VersionId": version.version_id}
        if tags:
            tag_set = [{"Key": name, "Value": value} for name, value in tags.items()]
            self.call(task, "put_object_tagging", NO_SUCH, **where, Tagging={"TagSet": tag_set})
        else:  # not every store takes an empty set
            self.call(task, "delete_object_tagging", NO_SUCH, **where)

    def locked(self, task: Work, version: Version) -> bool:
        """Whether a legal hold or a retention date keeps this version from being deleted."""
        where, unlocked = {"Key": version.key, "VersionId": version.version_id}, NO_SUCH | _NO_LOCK
        hold = self.call(task, "get_object_legal_hold", unlocked, **where)
        if hold and hold.get("LegalHold", {}).get("Status") == "ON":
            return True
        kept = self.call(task, "get_object_retention", unlocked, **where)
        until = kept and kept.get("Retention", {}).get("RetainUntilDate")
        return bool(until and until > datetime.now(until.tzinfo))

    # --- any call

    def call(self, task: Work, operation: str, allow: Collection[str] = (), **parameters: Any) -> dict[str, Any] | None:
        """Make one call on the bucket.

        Args:
            task: Whose time it takes.
            operation: As boto3 calls it, such as `get_object_tagging`.
            allow: Error codes that the caller knows how to take.
            parameters: Besides the bucket.

        Returns:
            The answer; None where it was one of those errors.

        Raises:
            LeaseEnded: the time is over, and nothing was sent.
            Retry: passing trouble, or something that operations can set right: a key, a right, a bucket.
            GiveToPerson: the store refuses this very call.
        """
        return self._call(task.limit, operation, allow, parameters)

    def ready(self) -> bool:
        """Whether the bucket's versions can be listed."""
        try:
            self._call(Limit(READY_SECONDS), "list_object_versions", (), {"MaxKeys": 1})
        except HandlerError:
            return False
        return True

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        self._s3.close()

    def _pages(
        self, task: Work, operation: str, prefix: str, markers: tuple[str, str], *, exact: bool
    ) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            page = self.call(task, operation, Prefix=prefix, **after) or {}
            if "IsTruncated" not in page:  # some other page, well formed: not to be taken for an empty list
                raise Retry("answer_incomplete")
            yield page
            # Keys come in their order: behind the key itself are only those that begin alike.
            if not page["IsTruncated"] or (exact and page.get("NextKeyMarker") != prefix):
                return
            before, after = after, {m: page[f"Next{m}"] for m in markers if page.get(f"Next{m}")}
            if after in ({}, before):
                raise GiveToPerson("paging_stands_still")
        raise GiveToPerson("too_many_pages")

    def _call(
        self, limit: Limit, operation: str, allow: Collection[str], parameters: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        limit.require()
        self._current.limit = limit
        try:
            answer: dict[str, Any] = getattr(self._s3, operation)(Bucket=self._bucket, **parameters)
        except ClientError as error:
            if error.response["Error"].get("Code") in allow:
                return None
            raise _failure(error) from None
        except BotoCoreError as error:  # an answer that is no XML, for one
            raise Retry(slug(type(error).__name__)) from None
        finally:
            del self._current.limit
        return answer

    def _send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        """Send a signed request, and read all of the answer. boto3 asks for this right before it would send."""
        limit: Limit = self._current.limit
        parts = urlsplit(request.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = self._http.build_request(
            request.method,
            f"{parts.scheme}://{parts.netloc}/",
            headers=[(name, _text(value)) for name, value in request.headers.items()],
            content=request.body or None,
            timeout=min(limit.require(), CALL_SECONDS),
            # The path goes out as it was signed, whatever is in a key.
            extensions={"trace": in_time(limit), "target": target.encode("ascii")},
        )
        try:
            with closing(self._http.send(sent, stream=True)) as answer:
                body = bytearray()
                for part in answer.iter_bytes():
                    body += part
                    limit.require()  # httpx bounds the wait for each part, not for all of them
                    if len(body) > MAX_ANSWER_BYTES:
                        raise GiveToPerson("answer_too_large")
        except httpx.HTTPError as error:
            limit.require()
            raise Retry(slug(type(error).__name__)) from None
        return AWSResponse(request.url, answer.status_code, answer.headers, _Read(bytes(body)))


@dataclass(frozen=True, slots=True)
class _Read:
    """A body that was read already, as botocore wants to read it."""

    body: bytes = field(repr=False)

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield self.body


@cache
def _session() -> boto3.session.Session:
    """It reads the description of S3, half a megabyte, once."""
    return boto3.session.Session()


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _failure(error: ClientError) -> HandlerError:
    """What an error asks to be done (Amazon S3, "Error responses")."""
    code, about = str(error.response["Error"].get("Code", "")), error.response.get("ResponseMetadata", {})
    status = int(about.get("HTTPStatusCode", 0))
    if status in {429, 503}:
        return retry_after(about.get("HTTPHeaders", {}).get("retry-after"))
    word = slug(code) if re.fullmatch(r"[A-Za-z]{1,64}", code) else f"http_{status}"
    # 401, 403: operations sets it right. 404, 409, 412: it is not as it was, the next look will tell.
    if status in {401, 403, 404, 408, 409, 412} or status >= httpx.codes.INTERNAL_SERVER_ERROR or code in _PASSING:
        return Retry(word)
    return GiveToPerson(word)


@cache
def _trusted(cafile: Path | None, prefix: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(f"{prefix}CAFILE cannot be read: name a file with certificates in PEM form") from None


def _secret(settings: S3Settings, prefix: str) -> str:
    secret = settings.secret_key.get_secret_value()
    if settings.secret_key_file:
        try:
            secret = settings.secret_key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"{prefix}SECRET_KEY_FILE cannot be read: name a file with the key") from None
    if not secret:
        raise ConfigurationError(f"there is no secret key: set {prefix}SECRET_KEY_FILE or {prefix}SECRET_KEY")
    return secret
