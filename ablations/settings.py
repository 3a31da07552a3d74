"""Parses the ``name=value`` arguments of commands that read a study."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from winnow.arguments import check_utf8
from winnow.commands import exits


def parse(
    arguments: Sequence[str],
    description: str | None,
    optional: Sequence[str],
    required: str = "study",
    usage: str | None = None,
) -> dict[str, str]:
    """Parse ``name=value`` arguments; ``usage`` is the usage line if not all of them are folders.

    Raises:
        ValueError: a setting is unknown, or ``required`` is missing.
    """
    names = (required, *optional)
    usage = usage or " ".join([f"{required}=DIR", *(f"[{name}=DIR]" for name in optional)])
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    parser.add_argument("settings", nargs="*", metavar=usage)
    settings = {}
    for setting in parser.parse_args(list(arguments)).settings:
        name, _, value = setting.partition("=")
        if name not in names or not value:
            raise ValueError(f"unknown setting {setting!r}: give {'=…, '.join(names)}=…")
        settings[name] = value
    if required not in settings:
        what = "the folder that ablations/run.py wrote" if required == "study" else "see --help"
        raise ValueError(f"give {required}=DIR, {what}")
    return settings


def value(setting: str) -> Any:
    """The value of ``name=value`` in Hydra's grammar; a ValueError on a syntax error."""
    # Imported here: commands that take only folders need no Hydra.
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from winnow.commands import overrides

    try:
        (quoted,) = overrides.quoted([setting])
        parsed = OverridesParser.create().parse_override(quoted)
        container = OmegaConf.to_container(OmegaConf.create({"value": parsed.value()}))
    except HydraException:
        raise ValueError(f"{setting!r} is not in Hydra's syntax: check its brackets") from None
    assert isinstance(container, dict)
    return container["value"]


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Call a command with the arguments of this process; an error exits with one line."""
    with exits.clear():
        with exits.usage():
            check_utf8(sys.argv[1:])
        main(sys.argv[1:])
