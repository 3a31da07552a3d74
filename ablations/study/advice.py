"""The command that would run, for what a refusal or an interruption says."""

import shlex
import sys

from winnow.cli import program


def command(*settings: str) -> str:
    """The command line that was given, as one types it, with ``settings`` in place of its own."""
    given = sys.orig_argv[len(sys.orig_argv) - len(sys.argv) + 1 :]
    names = {setting.partition("=")[0] for setting in settings}
    kept = [argument for argument in given if argument.partition("=")[0] not in names]
    start = ["python"] if program().endswith(".py") else []
    return " ".join([*start, program(), *map(shlex.quote, [*kept, *settings])])
