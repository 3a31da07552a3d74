"""Hydra's errors as one line that says what to do."""

from collections.abc import Iterator

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from winnow.arguments import advice


def one_line(error: HydraException | OmegaConfBaseException) -> str:
    """The message for an override or a config that Hydra rejects."""
    for cause in _causes(error):
        if isinstance(cause, MissingConfigException) and cause.options:
            group, _, choice = str(cause.missing_cfg_file).rpartition("/")
            return f"there is no {group}={choice}: {advice(choice, sorted(cause.options))}"
        if isinstance(cause, OverrideParseException):
            return f"{cause.override!r} is not a setting: write NAME=VALUE"
        if isinstance(cause, OmegaConfBaseException):
            key = cause.full_key or str(cause.key)
            if isinstance(cause, ConfigAttributeError | ConfigKeyError):
                prefix = key.rpartition(".")[0]
                known = [f"{prefix}.{name}".lstrip(".") for name in _names(cause.parent_node)]
                return f"there is no setting {key}: {advice(key, sorted(known))}"
            return f"{key}: {_first_line(cause)}"
    return _first_line(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _names(node: object) -> list[str]:
    names = [str(name) for name in node] if isinstance(node, DictConfig) else []
    return [name for name in names if name != "hydra"]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return next(filter(None, lines), type(error).__name__)
