"""Shared parts of Hydra commands: typed settings, and errors without a traceback."""

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig, OmegaConf

from winnow.arguments import advice
from winnow.commands import exits
from winnow.defaults import CONF


def main(settings: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """``hydra.main`` for the settings of ``conf/SETTINGS.yaml``."""
    folder, name = os.path.split(os.path.join(CONF, settings))
    return hydra.main(version_base="1.3", config_path=folder, config_name=name)


def run(
    act: Callable[[Any], None],
    config: DictConfig,
    *expected: type[Exception],
    again: str = "run the same command again",
) -> None:
    """Call ``act`` with the config as its dataclass; see :func:`winnow.commands.exits.clear`."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        # Not in a distributed run: a process that waits in a collective does not handle signals.
        signal.signal(signal.SIGTERM, _interrupt)
    with exits.clear(*expected, again=again):
        with exits.usage():
            settings = checked(config)
        act(settings)


def checked(config: DictConfig) -> Any:
    """The config as an instance of its dataclass; ValueError for an invalid key or value."""
    for name, known in _unknown(config):
        raise ValueError(f"there is no setting {name}: {advice(name, known)}")
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"{', '.join(missing)} missing: give it as {missing[0]}=VALUE")
    return OmegaConf.to_object(config)


def _unknown(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Keys of the config that its dataclass lacks, each with the known ones."""
    kind = OmegaConf.get_type(config)
    if not dataclasses.is_dataclass(kind):
        return
    known = [prefix + field.name for field in dataclasses.fields(kind)]
    for key in map(str, config):
        name = prefix + key
        if name not in known:
            yield name, known
        elif not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            yield from _unknown(config[key], f"{name}.")


def _interrupt(number: int, _: Any) -> NoReturn:
    raise KeyboardInterrupt(number)
