"""What a command imports takes most of its start: without garbage collection and needless parts."""

import contextlib
import gc
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder

from winnow.commands import telling


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Say "starting" while the block imports what a command needs.

    Modules stay, so nobody looks for garbage among them: not while they are imported, nor later.
    """
    known, collecting = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        with telling.doing("starting"):
            yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        if collecting:
            gc.enable()


class _Missing(MetaPathFinder):
    """Finds that some modules are not there."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, name: str, *_: object) -> None:
        """Nothing, so that other finders look for it.

        Raises:
            ModuleNotFoundError: it is one of those modules.
        """
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """The block cannot import these modules, unless they are imported already."""
    finder = _Missing(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def no_pandas_nor_scipy() -> None:
    """Keep Arrow from importing pandas and numba from importing scipy: 0.2 s and 90 MB.

    Arrow imports pandas with the first array that it makes of numpy's, to know a Series when it
    meets one; its methods that need pandas import it still. Numba imports scipy with its first
    kernel, to know whether it could multiply matrices; a kernel that does imports it still. Where
    others' code runs in this process, leave both as they are.
    """
    import pyarrow as pa

    with without("pandas", "scipy.linalg"):
        pa.array([0])
        from numba.np import arraymath
    arraymath._HAVE_BLAS = importlib.util.find_spec("scipy") is not None
