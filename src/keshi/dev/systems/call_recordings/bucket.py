"""The bucket of recordings and transcripts, in its owner's hands: made, filled, and read past every handler."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from keshi.dev.s3 import REGION, Account
from keshi.dev.systems.call_recordings.sample import version_ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from keshi.dev.systems.call_recordings.sample import Blob
    from keshi.dev.systems.snapshots import Row, Rows

NAME: Final = "call-recordings"
TAG: Final = "suspended_by"
_THREADS = 8
_SECONDS = 30
_OK = 200

T = TypeVar("T")
R = TypeVar("R")

HANDLER_MAY: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("s3:ListBucketVersions", "s3:ListBucketMultipartUploads"),
    "/*": (
        "s3:DeleteObjectVersion",
        "s3:AbortMultipartUpload",
        "s3:GetObjectVersionTagging",
        "s3:PutObjectVersionTagging",
        "s3:DeleteObjectVersionTagging",
        "s3:GetObjectRetention",
        "s3:GetObjectLegalHold",
    ),
}
"""What keshi's handler may do to the bucket and to its objects. Not one recording can be listened to with that."""
PLAYER_MAY: Final[Mapping[str, tuple[str, ...]]] = {"/*": ("s3:GetObject", "s3:GetObjectTagging")}


@dataclass(frozen=True)
class Version:
    """One version of an object, or a delete marker."""

    key: str
    version_id: str
    marker: bool


@cache
def _session() -> boto3.session.Session:
    """It reads the description of S3 once."""
    return boto3.session.Session()


class Bucket:
    """One bucket with all its versions; several threads may use it.

    Args:
        endpoint: of the S3 server.
        owner: who may do everything.
        name: of the bucket.
    """

    def __init__(self, endpoint: str, owner: Account, name: str = NAME) -> None:
        self.endpoint = endpoint
        self.owner = owner
        self.name = name
        self._clients: dict[Account, Any] = {}
        self._free: list[HTTPConnection] = []

    def client(self, account: Account | None = None) -> Any:
        """A client of boto3, by default the owner's."""
        who = account or self.owner
        if who not in self._clients:
            self._clients[who] = _session().client(
                "s3",
                endpoint_url=self.endpoint,
                region_name=REGION,
                aws_access_key_id=who.access_key,
                aws_secret_access_key=who.secret_key,
                config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"total_max_attempts": 2}),
            )
        return self._clients[who]

    def close(self) -> None:
        """Close all connections; it can be used again."""
        self._hang_up()
        while self._clients:
            self._clients.popitem()[1].close()

    def create(self, rights: Mapping[str, Mapping[str, Iterable[str]]]) -> None:
        """Make it, keeping versions and able to lock some; may be repeated.

        Args:
            rights: access key → part of the bucket (`""` for itself, `/*` for its objects) → actions.
        """
        s3 = self.client()
        try:
            s3.create_bucket(Bucket=self.name, ObjectLockEnabledForBucket=True)
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise
        s3.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})
        s3.put_bucket_policy(Bucket=self.name, Policy=json.dumps(self._policy(rights)))

    def _policy(self, rights: Mapping[str, Mapping[str, Iterable[str]]]) -> dict[str, Any]:
        statements = [
            {
                "Effect": "Allow",
                "Principal": {"AWS": [who]},
                "Action": list(actions),
                "Resource": f"arn:aws:s3:::{self.name}{part}",
            }
            for who, parts in rights.items()
            for part, actions in parts.items()
        ]
        return {"Version": "2012-10-17", "Statement": statements}

    # --- what is in it

    def fill(self, blobs: Iterable[Blob]) -> None:
        """Put these objects, each with its versions in their order, several objects side by side."""
        self._each(self._fill, blobs)

    def _fill(self, blob: Blob) -> None:
        for content in blob.versions:
            tags = {TAG: blob.suspended_by} if blob.suspended_by else {}
            self.put(blob.key, content, tags)
        if blob.deleted:
            self.mark_deleted(blob.key)

    def put(self, key: str, content: bytes, tags: Mapping[str, str] | None = None) -> str:
        """Write one version; its id."""
        headers = {"x-amz-tagging": urlencode(tags)} if tags else {}
        return self._send("PUT", key, body=content, headers=headers)[1]["x-amz-version-id"]

    def mark_deleted(self, key: str) -> None:
        """A plain delete: a marker on top."""
        self._send("DELETE", key)

    def get(self, key: str, version_id: str) -> bytes:
        """What one version holds."""
        return self._send("GET", key, versionId=version_id)[0]

    def versions(self, prefix: str = "") -> list[Version]:
        """All versions and markers of a prefix, by key and id.

        The ids of the development server sort by time. Which one it calls the latest is not asked: where a page of
        its listing begins in the midst of a key, it says so of another.
        """
        pages = self.client().get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=prefix)
        found = {
            (entry["Key"], entry["VersionId"], kind == "DeleteMarkers")
            for page in pages
            for kind in ("Versions", "DeleteMarkers")
            for entry in page.get(kind, ())
        }
        return [Version(*entry) for entry in sorted(found)]

    def rows(self) -> Rows:
        """Every version and marker as a row, under `recordings:<key>?version=<n>`, the oldest being 1."""
        places: dict[str, int] = {}
        named = []
        for version in self.versions():
            places[version.key] = places.get(version.key, 0) + 1
            named.append((version_ref(version.key, places[version.key]), version))
        rows = self._each(self._row, [version for _, version in named])
        return {ref: row for (ref, _), row in zip(named, rows, strict=True)}

    def _row(self, version: Version) -> Row:
        row: Row = {"version_id": version.version_id, "delete_marker": version.marker, "suspended_by": None, "tags": {}}
        if version.marker:
            return row
        content, headers = self._send("GET", version.key, versionId=version.version_id)
        row["sha256"] = hashlib.sha256(content).hexdigest()
        if headers.get("x-amz-tagging-count", "0") != "0":
            row["tags"] = self.tags(version.key, version.version_id)
            row["suspended_by"] = row["tags"].pop(TAG, None)
        return row

    def tags(self, key: str, version_id: str) -> dict[str, str]:
        """The tags of one version."""
        found = self.client().get_object_tagging(Bucket=self.name, Key=key, VersionId=version_id)["TagSet"]
        return {tag["Key"]: tag["Value"] for tag in found}

    # --- thousands of small calls: boto3 takes several times as long for each

    def _each(self, what: Callable[[T], R], items: Iterable[T]) -> list[R]:
        try:
            with ThreadPoolExecutor(_THREADS, thread_name_prefix="bucket") as pool:
                return list(pool.map(what, items))
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        while self._free:
            self._free.pop().close()

    def _send(
        self, method: str, key: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None, **query: str
    ) -> tuple[bytes, Mapping[str, str]]:
        path = f"/{self.name}/{quote(key, safe='/~')}" + (f"?{urlencode(query)}" if query else "")
        request = AWSRequest(method, f"{self.endpoint}{path}", data=body, headers=dict(headers or {}))
        keys = Credentials(self.owner.access_key, self.owner.secret_key)
        S3SigV4Auth(keys, "s3", REGION).add_auth(request)
        with self._connection() as connection:
            connection.request(method, path, body, dict(request.headers))
            answer = connection.getresponse()
            content = answer.read()
        if not _OK <= answer.status < 300:  # noqa: PLR2004 - success is 2xx
            raise HTTPException(f"{method} of an object was answered with {answer.status}")
        return content, {name.lower(): value for name, value in answer.getheaders()}

    @contextmanager
    def _connection(self) -> Iterator[HTTPConnection]:
        try:
            connection = self._free.pop()
        except IndexError:
            connection = HTTPConnection(urlsplit(self.endpoint).netloc, timeout=_SECONDS)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._free.append(connection)
