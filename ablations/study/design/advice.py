"""The command that would run, for refusals."""

import shlex
import sys

from winnow.cli import program


def command(*settings: str) -> str:
    """The given command line, shell-quoted, with ``settings`` replaced or added."""
    given = sys.orig_argv[len(sys.orig_argv) - len(sys.argv) + 1 :]
    names = {setting.partition("=")[0] for setting in settings}
    kept = [argument for argument in given if argument.partition("=")[0] not in names]
    start = ["python"] if program().endswith(".py") else []
    return " ".join([*start, program(), *map(shlex.quote, [*kept, *settings])])
