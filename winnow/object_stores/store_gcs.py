"""Google Cloud Storage, by its own client with Beam's credentials."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import google.auth
import requests.adapters
from apache_beam.io.gcp.gcsio import create_storage_client
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from google.api_core import exceptions as faults
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from winnow.object_stores.bucket import Stat, Upload

RETRY = DEFAULT_RETRY.with_delay(initial=0.5, multiplier=2, maximum=15).with_timeout(120)
"""The client's own policy: retry 408, 429, 5xx and broken connections for two minutes."""

_ERRORS = (DataCorruption, faults.GoogleAPIError, GoogleAuthError, RequestException)
_KINDS = (
    (faults.NotFound, FileNotFoundError),
    ((faults.Forbidden, faults.Unauthorized), PermissionError),
    (faults.PreconditionFailed, FileExistsError),
)
_CONNECTIONS = 64
_PART = 16 << 20  # the client would hold parts of 100 MB


class GcsBucket:
    """A thread-safe :class:`winnow.object_stores.bucket.Bucket`."""

    def __init__(self, options: PipelineOptions, name: str) -> None:
        self._name = name
        cloud = options.view_as(GoogleCloudOptions)
        anonymous = "STORAGE_EMULATOR_HOST" in os.environ or cloud.no_auth
        if not anonymous:
            _check_credentials(name, cloud.gcp_oauth_scopes)
        self._client = create_storage_client(options, use_credentials=not anonymous)
        # There may be more threads than the default pool's ten connections.
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=_CONNECTIONS)
        self._client._http.mount("https://", adapter)
        self._client._http.mount("http://", adapter)
        self._bucket = self._client.bucket(name)

    def stat(self, key: str) -> Stat | None:
        with self._errors(key):
            blob = self._bucket.get_blob(key, retry=RETRY)
        return None if blob is None else Stat(blob.size, str(blob.generation))

    def read(self, key: str, start: int, end: int, version: str) -> bytes:
        with self._errors(key):
            span = {"start": start, "end": end - 1, "if_generation_match": int(version)}
            blob = self._bucket.blob(key)
            return blob.download_as_bytes(**span, raw_download=True, checksum=None, retry=RETRY)

    def upload(self, key: str, file: BinaryIO) -> None:
        """One request, or a resumable upload; an unfinished one is invisible and expires."""
        with self._errors(key), Upload(file) as again:
            size = os.fstat(file.fileno()).st_size
            blob = self._bucket.blob(key, chunk_size=_PART)
            blob.upload_from_file(again, size=size, retry=RETRY)

    def replace(self, key: str, content: bytes, version: str | None) -> str | None:
        """A conditional write; returns the new generation."""
        blob = self._bucket.blob(key)
        try:
            with self._errors(key):
                blob.upload_from_string(content, if_generation_match=int(version or 0), retry=RETRY)
        except FileExistsError:
            return None
        return str(blob.generation)

    def keys(self, prefix: str, direct: bool = False) -> Iterator[str]:
        with self._errors(prefix):
            for blob in self._client.list_blobs(
                self._bucket, prefix=prefix, delimiter="/" if direct else None, retry=RETRY
            ):
                yield blob.name

    def delete(self, keys: Sequence[str]) -> None:
        """One request per object, many in parallel."""

        def delete(key: str) -> None:
            with contextlib.suppress(FileNotFoundError), self._errors(key):
                self._bucket.delete_blob(key, retry=RETRY)

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(delete, keys))

    def abort_uploads(self, prefix: str, chosen: Callable[[str], bool]) -> None:
        """Nothing to do: unfinished uploads cannot be listed or read."""

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except _ERRORS as error:
            kind = next((ours for theirs, ours in _KINDS if isinstance(error, theirs)), OSError)
            raise kind(f"gs://{self._name}/{key}: {error}") from error


def _check_credentials(bucket: str, scopes: Sequence[str]) -> None:
    """Raise PermissionError without credentials; Beam would try five times, then go without."""
    logging.getLogger("google.auth").setLevel(logging.ERROR)  # it logs each place it looks at
    try:
        google.auth.default(scopes=scopes)
    except DefaultCredentialsError as error:
        raise PermissionError(
            f"gs://{bucket}: this machine has no Google credentials: run `gcloud auth"
            " application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS; for a public"
            " bucket, use --no_auth (docs/engines.md)"
        ) from error
