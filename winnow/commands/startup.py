"""Faster start of commands: imports without garbage collection or unneeded modules."""

import contextlib
import gc
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from winnow.commands import console


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Show "starting" while the block imports; exclude modules from garbage collection for good."""
    known, collecting = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        with console.doing("starting"):
            yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        if collecting:
            gc.enable()


@contextlib.contextmanager
def _finder_first(finder: "_Missing | _Later") -> Iterator[None]:
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Missing:
    """Reports some modules as missing; ``None`` in ``sys.modules`` does not stop Cython."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, name: str, *_: object) -> None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def without(*names: str) -> contextlib.AbstractContextManager[None]:
    """Hide these modules from imports in the block, unless already imported."""
    return _finder_first(_Missing(names))


class _StandIn(ModuleType):
    """A module whose attributes are dummy classes, which import and call the real ones."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(_: type, *arguments: Any, **named: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*arguments, **named)

        return type(name, (Exception,), {"__new__": call})


class _Later:
    """Finds and loads stand-ins for some packages and their submodules."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name.partition(".")[0] not in self._packages:
            return None
        # The base class would be importlib.abc.Loader, which takes 20 ms to import.
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextlib.contextmanager
def later(*packages: str) -> Iterator[None]:
    """Defer imports of these packages in the block until one of their functions is called."""
    try:
        with _finder_first(_Later(packages)):
            yield
    finally:
        for name in [name for name, module in sys.modules.items() if type(module) is _StandIn]:
            del sys.modules[name]


def no_pandas_nor_scipy() -> None:
    """Keep Arrow from importing pandas, and numba from importing scipy and cffi: 0.2 s and 90 MB.

    Arrow imports pandas with its first array from numpy, to recognise a Series; numba imports scipy
    with its first kernel, to check for BLAS, and cffi for kernels that call C. Not for user code.
    """
    import pyarrow as pa

    with without("pandas", "scipy.linalg", "cffi"):
        pa.array([0])
        from numba.core.typing import cffi_utils  # noqa: F401
        from numba.np import arraymath
    arraymath._HAVE_BLAS = importlib.util.find_spec("scipy") is not None
