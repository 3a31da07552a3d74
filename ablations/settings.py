"""The ``name=value`` command line of programs that read a study."""

import argparse
from collections.abc import Sequence
from typing import Any

from ablations.reading import read_study
from ablations.study_files.results import Study


def parse(
    arguments: Sequence[str],
    description: str | None,
    further: Sequence[str],
    first: str = "study",
    usage: str | None = None,
) -> dict[str, str]:
    """The settings given as ``name=value``: ``first``, which must be there, and ``further`` ones.

    Args:
        arguments: of the command line.
        description: what ``--help`` says.
        further: names of settings that may be left out.
        first: the name of the setting that may not.
        usage: what to show of the settings, if they are not all folders.

    Raises:
        ValueError: an unknown setting, or ``first`` is missing.
    """
    names = (first, *further)
    usage = usage or " ".join([f"{first}=DIR", *(f"[{name}=DIR]" for name in further)])
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
    if first not in settings:
        what = "the folder that ablations/run.py wrote" if first == "study" else "see --help"
        raise ValueError(f"give {first}=DIR, {what}")
    return settings


def value(setting: str) -> Any:
    """What a setting ``name=value`` means in Hydra's grammar: a list, mapping, number or text.

    Raises:
        ValueError: it is none of these.
    """
    # Hydra is loaded only where there is more to read than a folder.
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from winnow.commands import overrides

    try:
        (quoted,) = overrides.quoted([setting])
        parsed = OverridesParser.create().parse_override(quoted)
        found = OmegaConf.to_container(OmegaConf.create({"value": parsed.value()}))
    except HydraException:
        raise ValueError(f"{setting!r} is not written as Hydra does: check its brackets") from None
    assert isinstance(found, dict)
    return found["value"]


def read(study: str, learning_rate: str | None = None) -> tuple[Study, Study | None]:
    """A study, and the one of its learning rates if there is one.

    Raises:
        ValueError: a file of either breaks the contract (:mod:`ablations.study_files.results`).
    """
    return read_study(study), read_study(learning_rate) if learning_rate else None
