"""The company's own application: what its people listen with. It serves nothing that is suspended.

A store whose bucket policies know tags should refuse it by itself, too (see docs/handlers.md); the development server
refuses such policies, so that here the application alone looks at the mark, as it does in the index.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from botocore.exceptions import ClientError

from keshi.dev.systems.call_recordings.bucket import TAG

if TYPE_CHECKING:
    from keshi.dev.s3 import Account
    from keshi.dev.systems.call_recordings.bucket import Bucket


class WithheldError(Exception):
    """The call, or its recording, is suspended."""


class NothingError(Exception):
    """There is no such call, or it has no recording."""


@dataclass(frozen=True)
class Player:
    """Plays recordings of calls.

    Attributes:
        dsn: of the index.
        bucket: the recordings.
        account: the player's own.
    """

    dsn: str = field(repr=False)
    bucket: Bucket
    account: Account

    def play(self, call_id: str, version_id: str | None = None) -> bytes:
        """What a call's recording holds, by default its latest version.

        Raises:
            WithheldError: it is suspended.
            NothingError: there is none.
        """
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(
                "SELECT recording_key, suspended_by FROM calls WHERE id = %s", (call_id,)
            ).fetchone()
        if row is None or row[0] is None:
            raise NothingError
        if row[1]:
            raise WithheldError
        return self._object(row[0], {} if version_id is None else {"VersionId": version_id})

    def _object(self, key: str, version: dict[str, str]) -> bytes:
        s3, where = self.bucket.client(self.account), {"Bucket": self.bucket.name, "Key": key, **version}
        try:
            tags: list[dict[str, Any]] = s3.get_object_tagging(**where)["TagSet"]
            if any(tag["Key"] == TAG for tag in tags):
                raise WithheldError
            content: bytes = s3.get_object(**where)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in {"NoSuchKey", "NoSuchVersion", "MethodNotAllowed"}:
                raise NothingError from None
            raise
        return content
