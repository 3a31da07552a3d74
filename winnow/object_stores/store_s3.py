"""S3 and compatible stores, by boto3."""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

import boto3
from apache_beam.options.pipeline_options import PipelineOptions, S3Options
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as faults
from botocore.config import Config
from urllib3.exceptions import HTTPError

from winnow.object_stores.bucket import Stat, Upload

WAITS = (1, 2, 4, 8, 16, 30)
"""Seconds before each retry, shortened at random. boto3's own retries end after seconds, and don't
cover a response body that breaks off."""

_BATCH = 1000  # S3's limit
_PARTS = TransferConfig(
    multipart_threshold=16 << 20, multipart_chunksize=16 << 20, use_threads=False
)
_TRANSIENT = (
    HTTPError,
    faults.ConnectionError,
    faults.HTTPClientError,
    faults.IncompleteReadError,
    faults.ResponseStreamingError,
)
_ERRORS: dict[int, type[OSError]] = {
    **dict.fromkeys((401, 403), PermissionError),
    404: FileNotFoundError,
    **dict.fromkeys((409, 412), FileExistsError),
}

_NO_CREDENTIALS = (
    ": run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (docs/engines.md)"
)

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class S3Bucket:
    """A thread-safe :class:`winnow.object_stores.bucket.Bucket`."""

    def __init__(self, options: PipelineOptions, name: str) -> None:
        self._name = name
        self._client = _client(options)

    def stat(self, key: str) -> Stat | None:
        try:
            head = self._call("head_object", key)
        except FileNotFoundError:
            return None
        return Stat(head["ContentLength"], head["ETag"])

    def read(self, key: str, start: int, end: int, version: str) -> bytes:
        def read() -> bytes:
            where = {"Bucket": self._name, "Key": key, "Range": f"bytes={start}-{end - 1}"}
            return self._client.get_object(**where, IfMatch=version)["Body"].read()

        return self._tried(key, read)

    def upload(self, key: str, file: BinaryIO) -> None:
        """One request, or parts of 16 MiB, aborted together if one fails."""

        def upload() -> None:
            with Upload(file) as again:
                self._client.upload_fileobj(again, self._name, key, Config=_PARTS)

        self._tried(key, upload)

    def replace(self, key: str, content: bytes, version: str | None) -> str | None:
        """A conditional write; returns the new ETag."""
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            return self._call("put_object", key, Body=content, **condition)["ETag"]
        except (FileExistsError, FileNotFoundError):
            return None

    def keys(self, prefix: str, direct: bool = False) -> Iterator[str]:
        more = {"Delimiter": "/"} if direct else {}
        while True:
            page = self._call("list_objects_v2", None, Prefix=prefix, **more)
            yield from (found["Key"] for found in page.get("Contents", ()))
            if not page["IsTruncated"]:
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, keys: Sequence[str]) -> None:
        """Up to a thousand per request."""
        for first in range(0, len(keys), _BATCH):
            batch = [{"Key": key} for key in keys[first : first + _BATCH]]
            failed = self._call("delete_objects", None, Delete={"Objects": batch, "Quiet": True})
            for error in failed.get("Errors", ()):
                raise OSError(f"s3://{self._name}/{error['Key']}: {error['Message']}")

    def abort_uploads(self, prefix: str, chosen: Callable[[str], bool]) -> None:
        more: dict[str, str] = {}
        while True:
            page = self._call("list_multipart_uploads", None, Prefix=prefix, **more)
            for upload in page.get("Uploads", ()):
                if chosen(upload["Key"]):
                    self._call("abort_multipart_upload", upload["Key"], UploadId=upload["UploadId"])
            if not page["IsTruncated"]:
                return
            more = {name: page[f"Next{name}"] for name in ("KeyMarker", "UploadIdMarker")}

    def _call(self, name: str, key: str | None, **arguments: Any) -> Any:
        where = {"Bucket": self._name} | ({} if key is None else {"Key": key})
        place = arguments.get("Prefix", "") if key is None else key
        return self._tried(place, lambda: getattr(self._client, name)(**where, **arguments))

    def _tried(self, key: str, call: Callable[[], T]) -> T:
        """Retry ``call`` after transient faults; others raise OSError."""
        for wait in (*WAITS, None):
            try:
                return call()
            except (faults.BotoCoreError, faults.ClientError, HTTPError) as error:
                status = _status(error)
                passing = isinstance(error, _TRANSIENT) or status in (408, 429) or status >= 500
                if not passing or wait is None:
                    kind = _ERRORS.get(status, OSError)
                    advice = _NO_CREDENTIALS if isinstance(error, faults.NoCredentialsError) else ""
                    raise kind(f"s3://{self._name}/{key}: {error}{advice}") from error
                _LOG.warning("s3://%s/%s: %s; trying again", self._name, key, error)
            time.sleep(wait * random.uniform(0.5, 1))
        raise AssertionError("the last try returns or raises")


def _client(options: PipelineOptions) -> Any:
    given = options.view_as(S3Options)
    return boto3.session.Session().client(
        "s3",
        region_name=given.s3_region_name,
        api_version=given.s3_api_version,
        use_ssl=not given.s3_disable_ssl,
        verify=given.s3_verify,
        endpoint_url=given.s3_endpoint_url,
        aws_access_key_id=given.s3_access_key_id,
        aws_secret_access_key=given.s3_secret_access_key,
        aws_session_token=given.s3_session_token,
        config=Config(retries={"mode": "standard"}, max_pool_connections=64),
    )


def _status(error: Exception) -> int:
    answer = getattr(error, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
