"""Finds and loads a trained model in the output of ``model/train.py`` or ``model/export.py``."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.data import corpus, tokenizer
from model.data.tokenizer import TextCodec
from model.glam import parameter
from model.glam.config import GLaMConfig
from model.glam.transformer import GLaM
from model.training.checkpoints import checkpoint, in_bucket
from model.training.distributed import parallel
from winnow.filesystem import storage

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


@dataclass(frozen=True)
class Trained:
    """A trained model in evaluation mode; ``sequence_length`` is that of its training rows."""

    model: GLaM
    codec: TextCodec
    sequence_length: int


@dataclass(frozen=True)
class Stored:
    """A trained model whose weights are still on disk.

    ``fill`` reads weights into tensors by their names in GLaM, sharded or not.
    """

    config: GLaMConfig
    codec: TextCodec
    sequence_length: int
    fill: Callable[[Mapping[str, Tensor]], None]


def load(path: str, device: torch.device, dtype: torch.dtype) -> Trained:
    """Load a trained model, sharded by :mod:`model.training.distributed.parallel`.

    ``path`` is the output of ``model/train.py``, whose newest checkpoint is read, one of its
    ``checkpoints/step_…``, or the output of ``model/export.py``, on disk or in a bucket. ``dtype``
    is that of activations and products.

    Raises:
        ValueError: the model or its tokenizer is missing or damaged, or the processes can't share
            it.
    """
    stored = find(path)
    model = parallel.empty(stored.config, device, dtype)
    stored.fill({name: p.detach() for name, p in model.named_parameters()})
    return Trained(model.eval(), stored.codec, stored.sequence_length)


def find(path: str) -> Stored:
    """Find a model as :func:`load` does, without reading its weights; raises as that does."""
    path = in_bucket.model_on_disk(path, WEIGHTS)
    if os.path.exists(os.path.join(path, WEIGHTS)):
        return _exported(path)
    found = checkpoint.resolve(path)
    folder = os.path.dirname(os.path.dirname(os.path.abspath(found.path)))
    load_these = checkpoint.loader(found)

    def fill(tensors: Mapping[str, Tensor]) -> None:
        load_these({f"model.{name}": to for name, to in tensors.items()})

    return Stored(
        _config(found.state["model"]),
        _codec(folder, found.state["boundary"]),
        found.state["identity"]["data.sequence_length"],
        fill,
    )


def _exported(path: str) -> Stored:
    if not os.path.exists(os.path.join(path, CONFIG)):
        raise ValueError(f"{path} is not a finished export: it has no {CONFIG}")
    about = storage.read_json(os.path.join(path, CONFIG))
    with _naming_damage(path):
        config = _config(about["glam"])
        boundary, length = about["boundary"], about["sequence_length"]
        with safe_open(os.path.join(path, WEIGHTS), "pt") as file:
            names = {name.removeprefix("glam.") for name in file.keys()}  # noqa: SIM118
        if wrong := names ^ shapes(config).keys():
            raise KeyError(f"{min(wrong)} is in one of {WEIGHTS} and {CONFIG} only")
    return Stored(config, _codec(path, boundary), length, functools.partial(_read, path))


def _read(path: str, tensors: Mapping[str, Tensor]) -> None:
    with _naming_damage(path), safe_open(os.path.join(path, WEIGHTS), "pt") as file:
        for name, to in tensors.items():
            whole = file.get_tensor(f"glam.{name}")
            if whole.shape != to.shape:
                raise KeyError(f"{name} is {[*whole.shape]}, not {[*to.shape]}")
            parameter.write(to, whole)


@contextlib.contextmanager
def _naming_damage(path: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"the model in {path} is damaged ({error}): export it again") from error


def _codec(folder: str, boundary: str) -> TextCodec:
    path = os.path.join(folder, corpus.TOKENIZER)
    if not os.path.exists(path):
        raise ValueError(f"{folder} has no {corpus.TOKENIZER}: copy that of the corpus there")
    return tokenizer.load(path, boundary)


def _config(stored: Mapping[str, Any]) -> GLaMConfig:
    schema = OmegaConf.structured(GLaMConfig)
    return cast(GLaMConfig, OmegaConf.to_object(OmegaConf.merge(schema, stored)))


def shapes(config: GLaMConfig) -> dict[str, torch.Size]:
    """The shapes of a model's weights, by name."""
    with torch.device("meta"):
        return {name: p.shape for name, p in GLaM(config).named_parameters()}
