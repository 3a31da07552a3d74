"""Suggests a command line when a study is refused."""

import shlex
import sys

from winnow.cli import program


def suggested_command(*settings: str) -> str:
    """The current command line, shell-quoted, with ``settings`` replaced or added."""
    arguments = sys.orig_argv[len(sys.orig_argv) - len(sys.argv) + 1 :]
    names = {setting.partition("=")[0] for setting in settings}
    kept = [argument for argument in arguments if argument.partition("=")[0] not in names]
    start = ["python"] if program().endswith(".py") else []
    return " ".join([*start, program(), *map(shlex.quote, [*kept, *settings])])
