"""Compiled kernels: numba compiles a kernel on its first call and caches it on disk.

The cache is ``NUMBA_CACHE_DIR``, else ``__pycache__`` beside the source, else the user's cache
folder. An entry is valid for one source, version of numba and processor. numba itself checks only
the source of the outermost kernel, not of those that it calls; :func:`_stamp` makes it check all.
Every module of kernels imports this one, for that and to report compilation.
"""

import functools
import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from numba import njit
from numba.core import caching, event
from numba.core.dispatcher import Dispatcher

from winnow.cli import command
from winnow.commands import console

SECONDS = 40
"""About the time to compile all kernels on one core."""

PACKAGES = ("winnow", "pipeline", "quality_classifier", "model")
"""Packages with kernels."""

ROOT = Path(__file__).resolve().parent.parent

Watcher = Callable[[str], None]
"""Called with the name of a kernel that is about to be compiled."""


class _Listener(event.Listener):
    """Reports the compilation of kernels that will be cached, not of a user's own."""

    def __init__(self) -> None:
        self.tell: Watcher = _announce

    def on_start(self, event: Any) -> None:
        kernel = event.data["dispatcher"]
        if folder(kernel) is not None:
            self.tell(f"{kernel.py_func.__module__}.{kernel.py_func.__name__}")

    def on_end(self, event: Any) -> None:
        pass


def _announce(_: str) -> None:
    _listener.tell = lambda _: None
    console.say(
        f"compiling kernels, once on this machine (about {SECONDS} s for all);"
        f" `{command('warm-up')}` does it beforehand"
    )


def watch(tell: Watcher) -> None:
    """Call ``tell`` for each kernel from now on, instead of announcing the first."""
    _listener.tell = tell


def kernels() -> Iterator[Any]:
    """The kernels of our imported modules, compiled or not."""
    found: dict[int, Any] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES:
            found |= {id(k): k for k in vars(module).values() if isinstance(k, Dispatcher)}
    yield from found.values()


def folder(kernel: Any) -> str | None:
    """The folder in which numba caches a kernel; None if it does not."""
    return cast(str | None, kernel._cache.cache_path)


@functools.cache
def sources(root: Path = ROOT) -> bytes:
    """A hash of all our modules with kernels."""
    found = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            if b"njit" in content:
                found.update(hashlib.sha256(content).digest())
    return found.digest()


_own_stamp = caching._SourceFileBackedLocatorMixin.get_source_stamp


def _stamp(locator: Any) -> Any:
    """The stamp that numba compares with a cached kernel's; its own for others' kernels."""
    own = _own_stamp(locator)
    path = Path(locator._py_file).resolve()
    ours = any(path.is_relative_to(ROOT / package) for package in PACKAGES)
    return (own, sources()) if ours else own


def _check_folder() -> None:
    """Raise OSError if numba finds no writable folder for its cache."""
    try:
        njit(cache=True)(_check_folder)
    except RuntimeError as error:
        raise OSError(
            "numba finds no folder for compiled kernels: set NUMBA_CACHE_DIR to one that you can"
            " write to"
        ) from error


caching._SourceFileBackedLocatorMixin.get_source_stamp = _stamp
_listener = _Listener()
event.register("numba:compile", _listener)
_check_folder()
