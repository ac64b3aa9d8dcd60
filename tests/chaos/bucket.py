"""The bucket of the call recordings, read by its owner with botocore's signatures and nothing of keshi's."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from threading import local
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree as ET

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_REGION = "us-east-1"
_THREADS = 4
_SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
TAG = "suspended_by"

Object = dict[str, Any]


def read(at: Mapping[str, Any]) -> dict[str, Object]:
    """Every key with all that lies under it: `versions`, by id, each with the mark that it carries.

    Args:
        at: `endpoint`, `bucket`, `access_key` and `secret_key` of its owner.
    """
    reader = _Reader(at)
    with ThreadPoolExecutor(_THREADS) as pool:
        listed = list(reader.listed())
        found = pool.map(reader.version, listed)
        objects: dict[str, Object] = {}
        for (key, version_id, _), version in zip(listed, found, strict=True):
            objects.setdefault(key, {"key": key, "versions": {}})["versions"][version_id] = version
    return objects


class _Reader:
    def __init__(self, at: Mapping[str, Any]) -> None:
        self._endpoint, self._bucket = at["endpoint"], at["bucket"]
        self._keys = Credentials(at["access_key"], at["secret_key"])
        self._own = local()

    def listed(self) -> Iterator[tuple[str, str, bool]]:
        """Each version: its key, its id, whether it is a delete marker."""
        after: dict[str, str] = {}
        while True:
            page = ET.fromstring(self._get("", {"versions": "", **after})[0])  # noqa: S314 - our own server's answer
            for kind, marker in (("Version", False), ("DeleteMarker", True)):
                for entry in page.iter(f"{_SPACE}{kind}"):
                    yield _text(entry, "Key"), _text(entry, "VersionId"), marker
            if _text(page, "IsTruncated") != "true":
                return
            after = {
                "key-marker": _text(page, "NextKeyMarker"),
                "version-id-marker": _text(page, "NextVersionIdMarker"),
            }

    def version(self, listed: tuple[str, str, bool]) -> Object:
        """What one version holds, and its mark."""
        key, version_id, marker = listed
        if marker:
            return {"marker": True, "content": None, "tags": {}, TAG: None}
        content, headers = self._get(key, {"versionId": version_id})
        tags = {}
        if headers.get("x-amz-tagging-count", "0") != "0":
            text = self._get(key, {"tagging": "", "versionId": version_id})[0]
            tags = {_text(t, "Key"): _text(t, "Value") for t in ET.fromstring(text).iter(f"{_SPACE}Tag")}  # noqa: S314 - as above
        mark = tags.pop(TAG, None)
        return {"marker": False, "content": hashlib.sha256(content).hexdigest(), "tags": tags, TAG: mark}

    def _get(self, key: str, query: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        path = f"/{self._bucket}/{quote(key, safe='/~')}?{urlencode(query)}"
        request = AWSRequest("GET", f"{self._endpoint}{path}")
        S3SigV4Auth(self._keys, "s3", _REGION).add_auth(request)
        if not hasattr(self._own, "connection"):
            self._own.connection = HTTPConnection(urlsplit(self._endpoint).netloc, timeout=30)
        self._own.connection.request("GET", path, headers=dict(request.headers))
        answer = self._own.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise OSError(f"the S3 server answers a question with {answer.status}")
        return content, {name.lower(): value for name, value in answer.getheaders()}


def _text(entry: ET.Element, name: str) -> str:
    found = entry.find(f"{_SPACE}{name}")
    return found.text or "" if found is not None else ""
