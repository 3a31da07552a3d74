"""Reads the user's lists of words, strings or domains, one per line."""

import ipaddress
import re
from collections.abc import Callable, Sequence

from winnow.filesystem import storage
from winnow.text.hosts import normal_host

_HOSTS_FILE = re.compile(r"(?P<address>[0-9a-fA-F.:]+)(?:%\w+)?\s+(?P<names>.+)")
_COMMENT = re.compile(r"(?:^|\s)[#!].*")
_OWN_NAMES = {"localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0"}


def read_lists(patterns: Sequence[str]) -> list[str]:
    """The distinct entries of UTF-8 list files, in order: one per line; ``#`` starts a comment.

    Raises:
        ValueError: a pattern matches no file, or a file holds no entry or is not UTF-8.
    """
    return _read(patterns, lambda line: [] if line.startswith("#") else [line])


def read_domains(patterns: Sequence[str]) -> list[str]:
    """The domains of list files in the normal form of :func:`winnow.text.hosts.hosts`.

    A line is a domain (``*.x``, ``.x`` and ``||x^`` mean x), or ``0.0.0.0 x y`` as in a hosts file;
    ``#`` and ``!`` start comments.

    Raises:
        ValueError: as for :func:`read_lists`, or a line is none of these.
    """
    return _read(patterns, _hosts)


def _read(patterns: Sequence[str], parse: Callable[[str], list[str]]) -> list[str]:
    entries: dict[str, None] = {}
    for path in (path for pattern in patterns for path in storage.find(pattern)):
        try:
            content = storage.read_bytes(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"the list {path} is not UTF-8: convert it") from error
        found = []
        for number, line in enumerate(content.splitlines(), 1):
            try:
                found += parse(line) if (line := line.strip().strip("\ufeff").strip()) else []
            except ValueError as error:
                raise ValueError(f"line {number} of the list {path} {error}") from error
        if not found:
            raise ValueError(f"the list {path} has no entries: fill it or leave it out")
        entries.update(dict.fromkeys(found))
    return list(entries)


def _hosts(line: str) -> list[str]:
    line = _COMMENT.sub("", line).strip()
    entry = _HOSTS_FILE.fullmatch(line)
    names = []
    if entry and _is_address(entry["address"]):
        names = [n for n in entry["names"].split() if n not in _OWN_NAMES and n[:4] != "ip6-"]
    elif line:
        names = [line.removeprefix("||").removesuffix("^").removeprefix("*.").strip(".")]
    hosts = []
    for name in names:
        host = normal_host(name)
        if host is None:
            raise ValueError(f"is not a domain ({name[:80]}): write it as example.com, or drop it")
        hosts.append(host.removeprefix("www."))
    return hosts


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
