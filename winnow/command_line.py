"""What Hydra's command lines share: typed settings, and ends without a traceback."""

import dataclasses
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from winnow.hydra_errors import advice

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def run(act: Callable[[Any], None], config: DictConfig, *expected: type[Exception]) -> None:
    """Call ``act`` with the config as an instance of its dataclass.

    What the user can mend (a ValueError, an OSError, or what else is ``expected``) is one line on
    standard error and exit code 1. So is an interruption, with the code that shells give it.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        # Not for one of several: it may be waiting for the others, where Python hears no signal.
        signal.signal(signal.SIGTERM, _interrupt)
    mendable: tuple[type[Exception], ...] = (ValueError, OSError, *expected)
    try:
        act(checked(config))
    except mendable as error:
        advice = ""
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            advice = ": make room and run the same command again"
        _fail(f"error: {error}{advice}")
    except KeyboardInterrupt as interrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))


def checked(config: DictConfig) -> Any:
    """The config as an instance of its dataclass.

    Raises:
        ValueError: a key is missing, or was added that the dataclass does not know (which Hydra
            lets pass, if it is written with ``+``), or a value is out of range.
    """
    for name, known in _unknown(config):
        raise ValueError(f"there is no setting {name}: {advice(name, known)}")
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"{', '.join(missing)} missing: give it as {missing[0]}=VALUE")
    return OmegaConf.to_object(config)


def _unknown(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Keys that a dataclass in the config does not have, each with those that it has."""
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


def _fail(message: str) -> NoReturn:
    """End with a message, which ``torchrun`` shows again at the end of what it has to say."""
    print(message, file=sys.stderr)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with open(path, "w") as file:
            json.dump({"message": message, "timestamp": int(time.time())}, file)
    sys.exit(1)
