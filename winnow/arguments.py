"""Command-line arguments: checks shared by all commands."""

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Reports errors as one line with a suggestion, and exits with code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """The values of a command line, by default the process's own."""
        values, unknown = self.parse_known_args(arguments)
        if unknown:
            name = unknown[0].partition("=")[0]
            self.error(f"there is no {name}: {advice(name, self.flags())}")
        return values

    def flags(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]


def flag(group: argparse._ActionsContainer, name: str, **kwargs: Any) -> None:
    """Add the flag ``--like-this``, also spelled ``--like_this`` like Beam's flags."""
    spellings = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
    group.add_argument(*spellings, dest=name, **kwargs)


def advice(name: str, known: Sequence[str]) -> str:
    """A suggestion: the most similar known name, or all of them if none is similar."""
    near = nearest(name, known)
    return f"did you mean {near}?" if near else f"there are {', '.join(known)}"


def nearest(name: str, known: Iterable[str], similarity: float = 0.6) -> str | None:
    """The most similar known name, or None if none reaches ``similarity`` (0 to 1)."""
    import difflib  # imported on errors only, to keep --help fast

    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=similarity)
    return matches[0] if matches else None


def check_utf8(arguments: Iterable[str]) -> None:
    """Raise ValueError for an argument that is not UTF-8: output files could not name it."""
    for argument in arguments:
        if not is_utf8(argument):
            raise ValueError(
                f"the argument {printable(argument)} is not UTF-8: rename what it names"
            )


def is_utf8(name: str) -> bool:
    """Whether a name from the operating system, perhaps any bytes, is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    r"""A name from the operating system, with bytes that are not UTF-8 as ``\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def whole_numbers(text: str) -> list[int]:
    """The numbers of a flag such as ``0,1,2``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of whole numbers, as 0,1,2"
        ) from None
