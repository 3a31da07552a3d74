"""Reads the user's lists of words, strings or domains, one per line."""

import ipaddress
import re
from collections.abc import Iterator, Sequence

from winnow.filesystem import storage
from winnow.text.hosts import normal_host

_HOSTS_FILE = re.compile(r"(?P<address>[0-9a-fA-F.:]+)(?:%\w+)?\s+(?P<names>.+)")
_COMMENT = re.compile(r"(?:^|\s)[#!].*")
_OWN_NAMES = {"localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0"}


def read_lists(patterns: Sequence[str]) -> list[str]:
    """The distinct entries of list files in order: UTF-8, one per line, ``#`` starts a comment.

    Raises:
        ValueError: a pattern matches no file, or a file holds no entry or is not UTF-8.
    """
    entries: dict[str, None] = {}
    for path in (path for pattern in patterns for path in storage.find(pattern)):
        found = [line for _, line in _lines(path) if not line.startswith("#")]
        if not found:
            raise ValueError(f"the list {path} has no entries: fill it or leave it out")
        entries.update(dict.fromkeys(found))
    return list(entries)


def read_domains(patterns: Sequence[str]) -> list[str]:
    """The domains of list files in the normal form of :func:`winnow.text.hosts.hosts`.

    A line is a domain (``*.x``, ``.x`` and ``||x^`` mean x, which covers its subdomains) or a line
    of a hosts file (``0.0.0.0 x y``); ``#`` and ``!`` start comments.

    Raises:
        ValueError: as for :func:`read_lists`, or a line is none of these.
    """
    entries: dict[str, None] = {}
    for path in (path for pattern in patterns for path in storage.find(pattern)):
        before = len(entries)
        seen = False
        for number, line in _lines(path):
            for name in _names(_COMMENT.sub("", line)):
                host = normal_host(name)
                if host is None:
                    raise ValueError(
                        f"line {number} of the list {path} is not a domain ({name[:80]}): write it"
                        " as example.com, or drop it"
                    )
                entries[host.removeprefix("www.")] = None
                seen = True
        if len(entries) == before and not seen:
            raise ValueError(f"the list {path} has no entries: fill it or leave it out")
    return list(entries)


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """The non-empty lines of a list with their numbers, without a byte order mark."""
    try:
        content = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the list {path} is not UTF-8: convert it") from error
    for number, line in enumerate(content.splitlines(), 1):
        if line := line.strip().strip("\ufeff").strip():
            yield number, line


def _names(line: str) -> Iterator[str]:
    """The domains in a line without comments."""
    entry = _HOSTS_FILE.fullmatch(line.strip())
    if entry and _is_address(entry["address"]):
        for name in entry["names"].split():
            if name not in _OWN_NAMES and not name.startswith("ip6-"):
                yield name
    elif name := line.strip():
        yield name.removeprefix("||").removesuffix("^").removeprefix("*.").strip(".")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
