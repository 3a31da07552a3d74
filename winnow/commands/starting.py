"""What a command imports takes most of its start: without garbage collection and needless parts."""

import contextlib
import gc
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

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


class _Missing:
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
def _asked_first(finder: "_Missing | _Later") -> Iterator[None]:
    """What the block imports is looked for by this finder before all others."""
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def without(*names: str) -> AbstractContextManager[None]:
    """The block cannot import these modules, unless they are imported already."""
    return _asked_first(_Missing(names))


class _StandIn(ModuleType):
    """Any name of it is a class that no object is of; to call it imports and calls the real one."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(_: type, *arguments: Any, **named: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*arguments, **named)

        return type(name, (Exception,), {"__new__": call})


class _Later:
    """Finds stand-ins for some packages and all below them."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """A stand-in, if it is of those packages."""
        if name.partition(".")[0] not in self._packages:
            return None
        # Its base class would be importlib.abc.Loader, which takes 20 ms to import.
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The stand-in."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to do."""


@contextlib.contextmanager
def later(*packages: str) -> Iterator[None]:
    """What the block imports gets these packages only when it calls something of theirs.

    For packages of which it only calls functions and classes, and those seldom.
    """
    try:
        with _asked_first(_Later(packages)):
            yield
    finally:
        for name in [name for name, module in sys.modules.items() if type(module) is _StandIn]:
            del sys.modules[name]


def no_pandas_nor_scipy() -> None:
    """Keep Arrow from importing pandas, and numba scipy and cffi: 0.2 s and 90 MB.

    Arrow imports pandas with the first array that it makes of numpy's, to know a Series when it
    meets one; its methods that need pandas import it still. Numba imports scipy with its first
    kernel, to know whether it could multiply matrices; a kernel that does imports it still. Cffi
    is for kernels that call C by it. Where others' code runs in this process, leave all as it is.
    """
    import pyarrow as pa

    with without("pandas", "scipy.linalg", "cffi"):
        pa.array([0])
        from numba.core.typing import cffi_utils  # noqa: F401
        from numba.np import arraymath
    arraymath._HAVE_BLAS = importlib.util.find_spec("scipy") is not None
