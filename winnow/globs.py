"""Globs of local files, as :func:`glob.glob` with ``recursive``, with three exceptions.

A folder without read permission is an error, not empty. ``**`` enters every folder once, so loops
of links end. A name that exists literally is that file, even if its brackets could be a character
class: ``part[1].jsonl``.
"""

import errno
import fnmatch
import glob
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence

_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def find(pattern: str) -> Iterator[str]:
    """The matching files and folders, in any order, perhaps repeated; OSError if unreadable."""
    magic = next((i for i, letter in enumerate(pattern) if letter in "*?["), None)
    if magic is None:
        if _is_there(pattern):
            yield pattern
        return
    start = pattern.rfind("/", 0, magic) + 1
    head, parts = pattern[:start], pattern[start:].split("/")
    yield from _below(head.rstrip("/") or head, [part for part in parts[:-1] if part] + parts[-1:])


def is_literal(part: str, there: bool) -> bool:
    """Whether a part of a glob is a literal name; ``there``: whether that name exists."""
    return not glob.has_magic(part) or ("[" in part and there)


def _below(folder: str, parts: Sequence[str]) -> Iterator[str]:
    """Matches of the parts of a glob below a folder; ``""`` is the working directory."""
    first, rest = parts[0], parts[1:]
    if first == "**":
        for below in tree(folder):
            yield from _below(below, rest or ["*"])
        return
    path = os.path.join(folder, first)
    if is_literal(first, _is_there(path)):
        paths = [path] if _is_there(path) else []
    else:
        hidden = first.startswith(".")
        names = [e.name for e in _entries(folder) if hidden or not e.name.startswith(".")]
        paths = [os.path.join(folder, name) for name in fnmatch.filter(names, first)]
    for path in paths:
        if not rest:
            yield path
        elif _is_folder(path):
            yield from _below(path, rest)


def tree(top: str) -> Iterator[str]:
    """A folder and all visible ones below it, each once; links are followed last, so that a folder
    is listed by its plain path if it has one.
    """
    seen: set[tuple[int, int]] = set()
    folders, links = [top] if _is_folder(top or ".") else [], deque[str]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        about = os.stat(folder or ".")
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        yield folder
        for entry in sorted(_entries(folder), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            path = os.path.join(folder, entry.name)
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_symlink() and _is_folder(path):
                links.append(path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    if not _is_folder(folder or "."):
        return []
    with os.scandir(folder or ".") as entries:
        return list(entries)


def _is_there(path: str) -> bool:
    return _status(os.lstat, path) is not None


def _is_folder(path: str) -> bool:
    status = _status(os.stat, path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _status(look: Callable[[str], os.stat_result], path: str) -> os.stat_result | None:
    try:
        return look(path)
    except OSError as error:
        if error.errno not in _NOTHING:
            raise
        return None
