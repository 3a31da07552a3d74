"""The URL blocklist: domains, whole words and substrings from the user's files.

Follows FineWeb (Penedo et al. 2024, section 3.1; datatrove's ``URLFilter``), but bundles no list. A
domain blocks its subdomains too: ``example.com`` blocks ``blog.example.com`` but not
``badexample.com``; a leading ``www.`` is ignored in both. Hosts are normalised by
:mod:`winnow.text.hosts`, words and substrings by :mod:`pipeline.steps.words.lexicon`. A document
without a URL passes.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps.contract import Codes, Flags, Step, first_failing
from pipeline.steps.words.lexicon import contains, lexicon
from pipeline.steps.words.lists import read_domains, read_lists
from winnow.sorted_keys import among
from winnow.text.groups import domain
from winnow.text.hashing import xxh3_64

Hashes = npt.NDArray[np.uint64]

_MAX_HOST = 253  # characters of a host name (RFC 1035); a hostile URL may have millions of labels


@dataclass
class UrlBlocklist(Step):
    """Drops documents by their URL. Each setting is a list of files for ``read_lists``."""

    domains: list[str]
    words: list[str]
    substrings: list[str]

    reasons: ClassVar[tuple[str, ...]] = ("url_domain", "url_word", "url_substring")
    input_files: ClassVar[tuple[str, ...]] = ("domains", "words", "substrings")
    needs_url: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (self.domains or self.words or self.substrings):
            raise ValueError("no list is given: name files under domains, words or substrings")
        self._hosts = host_hashes(read_domains(self.domains))
        self._words = lexicon(_literals(self.words))
        self._substrings = lexicon(_literals(self.substrings))

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        url = batch["url"]
        return batch, first_failing(
            on_hosts(url, self._hosts),
            contains(url, self._words, words=True),
            contains(url, self._substrings, words=False),
        )


def _literals(files: list[str]) -> list[str]:
    entries = read_lists(files)
    for entry in entries:
        if entry.startswith("*") or entry.endswith("*"):
            raise ValueError(
                f"'*' is not a wildcard in words and substrings: write {entry.strip('*.')!r} for"
                f" {entry!r}, or list hosts under domains"
            )
    return entries


def host_hashes(domains: list[str]) -> Hashes:
    """The sorted hashes of domains in normal form, for :func:`on_hosts`."""
    return np.unique(xxh3_64(pa.array(domains, pa.string())))


def on_hosts(url: pa.Array, hosts: Hashes) -> Flags:
    """Which URLs (string [n], nulls allowed) are on one of the hosts or below it: bool [n]."""
    flags = np.zeros(len(url), np.bool_)
    if len(hosts) == 0:
        return flags
    name = _end(domain(url))
    rows = np.arange(len(url))
    while len(rows):
        flags[rows] |= among(hosts, xxh3_64(name))
        below = pc.match_substring(name, ".").to_numpy(zero_copy_only=False)
        rows = rows[below]
        name = pc.replace_substring_regex(name.filter(pa.array(below)), r"^[^.]*\.", "")
    return flags


def _end(name: pa.Array) -> pa.Array:
    """The last labels of host names (string [n], nulls allowed) that fit the limit."""
    end = pc.utf8_slice_codeunits(name, -_MAX_HOST - 1, None)
    whole = pc.replace_substring_regex(end, r"^[^.]*\.?", "")
    return pc.if_else(pc.greater(pc.utf8_length(name), _MAX_HOST), whole, name)
