"""Imports Beam without the libraries that a local run never calls.

Beam imports every client and data library that it finds: 0.9 s of 1.5 with pandas and the extras
``gcp`` and ``aws`` installed. It works without :data:`CLIENTS`, which are hidden from it; it needs
:data:`LATER` (0.25 s), which are imported on first use.
"""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from winnow.commands import startup

CLIENTS = (
    "absl", "apache_beam.io.gcp.bigquery", "apitools", "boto3", "botocore", "bson", "dill",
    "google.api_core", "google.auth", "google.cloud", "pandas", "pymongo", "requests",
)  # fmt: skip
LATER = ("beartype", "cryptography", "fastavro", "httplib2", "proto")

_CONFIG = re.compile(r"--config[= ](\S+)")
_RUNNER = re.compile(r"--runner[= ](?!(?:[\w.]*\.)?(?:DirectRunner|FnApiRunner)\b)")
_PICKLER = "--pickle_library"  # it may be dill


def left_out_if_local(arguments: Sequence[str]) -> AbstractContextManager[None]:
    """Leave the clients :func:`left_out` unless a command line needs them."""
    return contextlib.nullcontext() if goes_beyond(arguments) else left_out()


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Hide the clients from imports within the block."""
    logging.disable(logging.WARNING)  # Beam warns of missing clients
    try:
        with startup.without(*CLIENTS), startup.later(*LATER):
            yield
    finally:
        logging.disable(logging.NOTSET)


def are_left_out() -> bool:
    """Whether this process has imported none of the clients."""
    return not any(name in sys.modules for name in CLIENTS)


def goes_beyond(arguments: Sequence[str]) -> bool:
    """Whether a command line or its config file names a cluster, an object store or a pickler."""
    line = " ".join(arguments)
    for path in _CONFIG.findall(line):
        try:
            with open(path, encoding="utf-8") as file:
                line += f" {file.read()}"
        except (OSError, UnicodeDecodeError):
            return True  # the command itself will report the error
    return "://" in line or _PICKLER in line or _RUNNER.search(line) is not None
