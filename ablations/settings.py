"""The ``name=value`` command line of programs that read a study."""

import argparse
from collections.abc import Sequence

from ablations.reading import read_study
from ablations.results import Study


def parse(
    arguments: Sequence[str], description: str | None, further: Sequence[str]
) -> dict[str, str]:
    """The settings given as ``name=value``: ``study``, which must be there, and ``further`` ones.

    Args:
        arguments: of the command line.
        description: what ``--help`` says.
        further: names of settings that may be left out.

    Raises:
        ValueError: an unknown setting, or no study.
    """
    names = ("study", *further)
    usage = " ".join(["study=DIR", *(f"[{name}=DIR]" for name in further)])
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar=usage)
    settings = {}
    for setting in parser.parse_args(list(arguments)).settings:
        name, _, value = setting.partition("=")
        if name not in names or not value:
            raise ValueError(f"unknown setting {setting!r}: give {'=…, '.join(names)}=…")
        settings[name] = value
    if "study" not in settings:
        raise ValueError("give study=DIR, the folder that ablations/run.py wrote")
    return settings


def read(study: str, learning_rate: str | None = None) -> tuple[Study, Study | None]:
    """A study, and the one of its learning rates if there is one.

    Raises:
        ValueError: a file of either breaks the contract (:mod:`ablations.results`).
    """
    return read_study(study), read_study(learning_rate) if learning_rate else None
