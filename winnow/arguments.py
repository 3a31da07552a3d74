"""What every command line of this project asks of its arguments."""

import os
from collections.abc import Iterable


def check_utf8(arguments: Iterable[str]) -> None:
    """Refuse names that could not be written to any file of ours.

    Raises:
        ValueError: an argument is not UTF-8.
    """
    for argument in arguments:
        if not is_utf8(argument):
            raise ValueError(
                f"the argument {printable(argument)} is not UTF-8: rename what it names"
            )


def is_utf8(name: str) -> bool:
    """Whether a name from the system, which may have any bytes, is text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    r"""A name from the system, bytes that are no UTF-8 as ``\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
