"""The user's word and domain lists, and the search for words in columns of text."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.steps.contract import Flags


def read_lists(patterns: Sequence[str]) -> list[str]:
    """The entries of list files (UTF-8, one a line, ``#`` starts a comment line), in order, once.

    Raises:
        ValueError: a pattern matches no file, or a file holds no entry or is not UTF-8.
    """
    entries: dict[str, None] = {}
    for path in (path for pattern in patterns for path in storage.find(pattern)):
        try:
            lines = [line.strip() for line in storage.read_bytes(path).decode().splitlines()]
        except UnicodeDecodeError as error:
            raise ValueError(f"the list {path} is not UTF-8: convert it") from error
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ValueError(f"the list {path} has no entries: fill it or leave it out")
        entries.update(dict.fromkeys(found))
    return list(entries)


def word_pattern(words: Sequence[str]) -> str:
    """A pattern for :func:`matches`: any of the words, with no letter, digit or _ beside it."""
    return rf"(?:^|[^\pL\pN_]){any_of(words)}(?:$|[^\pL\pN_])" if words else ""


def any_of(strings: Sequence[str]) -> str:
    """A pattern for :func:`matches`: any of the strings, anywhere."""
    return f"(?:{'|'.join(re.escape(string) for string in strings)})" if strings else ""


def matches(values: pa.Array, pattern: str) -> Flags:
    """Which values (n strings) match an RE2 pattern in any case: bool [n].

    No null and no empty pattern matches. RE2 takes time linear in the text whatever the pattern.
    """
    if not pattern:
        return np.zeros(len(values), np.bool_)
    found = pc.match_substring_regex(values, pattern, ignore_case=True)
    flags: Flags = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return flags
