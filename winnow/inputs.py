"""Each input file once, however many paths and links lead to it."""

import os
import sys
from collections.abc import Callable, Iterable

from winnow import storage


def spellings(paths: Iterable[str]) -> list[list[str]]:
    """The paths to each file, in the given order."""
    files: dict[object, dict[str, None]] = {}
    for path in paths:
        files.setdefault(storage.identity(path), {})[path] = None
    return [list(same) for same in files.values()]


def each_once(title: str, paths: Iterable[str], say: Callable[[str], None]) -> list[str]:
    """One path to each file of a source, sorted; ``say`` gets a warning for files with several.

    Of several paths it is the shortest one, preferably without links.
    """
    files = spellings(paths)
    chosen = [min(same, key=_rank) if len(same) > 1 else same[0] for same in files]
    repeated = [(path, same) for path, same in zip(chosen, files, strict=True) if len(same) > 1]
    if repeated:
        path, same = repeated[0]
        other = min(name for name in same if name != path)
        count, n = sum(len(same) for _, same in repeated), len(repeated)
        say(
            f"warning: {title}: {count} paths lead to {n} file{'s' * (n != 1)}, read once"
            f" ({other} is {path})"
        )
    return sorted(chosen)


def check_disjoint(files: Iterable[tuple[str, str]]) -> None:
    """Refuse a file in two sources.

    Args:
        files: for each file of each source, its path and the source's title.

    Raises:
        ValueError: two sources have the same file.
    """
    owners: dict[object, tuple[str, str]] = {}
    for path, title in files:
        other, owner = owners.setdefault(storage.identity(path), (path, title))
        if owner != title:
            spelled = "" if other == path else f" (as {other})"
            raise ValueError(f"{path} is in two sources, {owner}{spelled} and {title}")


def warn(line: str) -> None:
    """Print a warning to standard error."""
    print(line, file=sys.stderr)


def _rank(path: str) -> tuple[bool, int, str]:
    through_links = storage.scheme(path) is None and (
        os.path.realpath(path) != os.path.abspath(path)
    )
    return through_links, len(path), path
