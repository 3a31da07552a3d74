"""What every command line of this project asks of its arguments."""

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, with the flag that may have been meant; exit code 2."""

    def error(self, message: str) -> NoReturn:
        """End the command."""
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """The values of a command line, by default that of the process."""
        found, strangers = self.parse_known_args(arguments)
        if strangers:
            name = strangers[0].partition("=")[0]
            self.error(f"there is no {name}: {advice(name, self.flags())}")
        return found

    def flags(self) -> list[str]:
        """The names of all flags."""
        return [name for action in self._actions for name in action.option_strings]


def advice(asked: str, known: Sequence[str]) -> str:
    """The known name that is spelled most like one, or all of them where none is near."""
    near = nearest(asked, known)
    return f"did you mean {near}?" if near else f"there are {', '.join(known)}"


def nearest(asked: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known name that is spelled most like one, if any is; ``likeness`` is from 0 to 1."""
    import difflib

    found = difflib.get_close_matches(asked, list(known), n=1, cutoff=likeness)
    return found[0] if found else None


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
