"""The input files of a glob or folder, each once, however many paths lead to it."""

import os
import re
from collections.abc import Callable, Iterable

from winnow import globs
from winnow.filesystem import storage

_NO_DATA = re.compile(
    r"[._].*|.*~|.*\.(crc|md5|sha1|sha256|sha512|tmp|temp|part|partial|crdownload|inprogress|swp)"
    r"|(?i:md5sums|sha\d*sums|checksums?|readme)(\..*)?"
)
"""Names of files that are not data: hidden, Hadoop's ``_SUCCESS``, checksums, partial files."""

_NO_DATA_FOLDER = re.compile(r"_[^=]*")
"""Folders such as ``_temporary``, which failed Hadoop jobs leave, but no partition ``_a=1``."""

_NAMED = 3


def find(pattern: str, say: Callable[[str], None]) -> list[str]:
    """The files that match a glob, or all files below a folder, sorted.

    Files in a folder whose names are not those of data are skipped and reported by ``say``. A
    folder in an object store is a path that ends in a slash.

    Raises:
        ValueError: a folder holds no data, or as :func:`winnow.filesystem.storage.find`.
        OSError: a folder cannot be read.
    """
    is_local = storage.scheme(pattern) is None
    if not (os.path.isdir(pattern) if is_local else pattern.endswith("/")):
        return storage.find(pattern)
    paths = storage.find(storage.join(pattern, "**"))
    left_out = [
        path for path in paths if not _is_data(path.removeprefix(storage.join(pattern, "")))
    ]
    data = sorted(set(paths) - set(left_out))
    if is_local:
        left_out += [
            os.path.join(folder, name)
            for folder in globs.tree(pattern)
            for name in os.listdir(folder)
            if name.startswith(".")
        ]
    if left_out:
        names = sorted(path.rsplit("/", 1)[-1] for path in left_out)
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        say(f"{pattern}: skipped, not data by name: {', '.join(names[:_NAMED])}{more}")
    if not data:
        raise ValueError(f"the folder {pattern} holds no data: check the path")
    return data


def _is_data(path: str) -> bool:
    """Whether the names in a path, relative to the given folder, are those of data."""
    *folders, name = path.split("/")
    return not (_NO_DATA.fullmatch(name) or any(map(_NO_DATA_FOLDER.fullmatch, folders)))


def spellings(paths: Iterable[str]) -> list[list[str]]:
    """The paths to each file, in the given order."""
    files: dict[object, dict[str, None]] = {}
    for path in paths:
        files.setdefault(storage.identity(path), {})[path] = None
    return [list(same) for same in files.values()]


def each_once(title: str, paths: Iterable[str], say: Callable[[str], None]) -> list[str]:
    """One path to each file of a source, sorted; ``say`` warns of files with several paths.

    Of several paths, the shortest is chosen, preferably one without links.
    """
    files = spellings(paths)
    chosen = [min(names, key=_rank) if len(names) > 1 else names[0] for names in files]
    repeated = [(path, names) for path, names in zip(chosen, files, strict=True) if len(names) > 1]
    if repeated:
        path, names = repeated[0]
        other = min(name for name in names if name != path)
        count, n = sum(len(names) for _, names in repeated), len(repeated)
        say(
            f"warning: {title}: {count} paths lead to {n} file{'s' * (n != 1)}, read once"
            f" ({other} is {path})"
        )
    return sorted(chosen)


def check_disjoint(files: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError if two sources share a file; ``files`` are (path, title of its source)."""
    owners: dict[object, tuple[str, str]] = {}
    for path, title in files:
        other, owner = owners.setdefault(storage.identity(path), (path, title))
        if owner != title:
            spelled = "" if other == path else f" (as {other})"
            raise ValueError(f"{path} is in two sources, {owner}{spelled} and {title}")


def _rank(path: str) -> tuple[bool, int, str]:
    local = storage.scheme(path) is None
    return local and os.path.realpath(path) != os.path.abspath(path), len(path), path
