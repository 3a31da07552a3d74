"""Beam without the clients of cloud services and other libraries, for commands that use none.

Importing Beam imports every client and data library that it finds: with the extras ``gcp`` and
``aws`` and pandas installed they are two thirds of its import, 0.9 s of 1.5. Beam does without
those that are missing, so they count as missing while it is imported. Others it wants, and a local
run calls nothing of theirs (0.25 s of what is left): they are imported once it does.
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
    """Leave the clients :func:`left_out` if a command line has no need of them."""
    return contextlib.nullcontext() if goes_beyond(arguments) else left_out()


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Hide the clients from what the block imports. Afterwards they can be imported as ever."""
    logging.disable(logging.WARNING)  # Beam tells what it misses
    try:
        with startup.without(*CLIENTS), startup.later(*LATER):
            yield
    finally:
        logging.disable(logging.NOTSET)


def are_left_out() -> bool:
    """Whether this process has none of them."""
    return not any(name in sys.modules for name in CLIENTS)


def goes_beyond(arguments: Sequence[str]) -> bool:
    """Whether a command line, with its file of settings, names a cluster, an object store or a
    pickler.
    """
    line = " ".join(arguments)
    for path in _CONFIG.findall(line):
        try:
            with open(path, encoding="utf-8") as file:
                line += f" {file.read()}"
        except (OSError, UnicodeDecodeError):
            return True  # the command itself will say what is wrong with it
    return "://" in line or _PICKLER in line or _RUNNER.search(line) is not None
