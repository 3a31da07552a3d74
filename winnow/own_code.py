"""User code by dotted path (``my_package.my_module.Name``), importable here and in workers."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def is_dotted(text: str) -> bool:
    """Whether a text has the form of a dotted path."""
    return _DOTTED.fullmatch(text) is not None


def load(path: str, what: str) -> Any:
    """Import the object at a dotted path; ValueError if that fails. ``what``: such as ``step``."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ValueError(
            f"{what} {path}: {error}; install its package for the run and its workers, or put its"
            " folder on PYTHONPATH"
        ) from error


def place(package: str) -> Path:
    """The folder of a package, or the file of a top-level module."""
    file = importlib.import_module(package).__file__
    if file is None:
        raise ValueError(f"{package} is a folder without __init__.py: add one")
    return Path(file).parent if Path(file).name == "__init__.py" else Path(file)


def source(path: str) -> str:
    """The file that defines the object at a dotted path."""
    module = importlib.import_module(path.rpartition(".")[0])
    target = getattr(module, path.rpartition(".")[2])
    return inspect.getfile(target if isinstance(target, type) else module)
