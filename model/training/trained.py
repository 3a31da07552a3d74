"""Loads a trained model from the output of ``model/train.py`` or ``model/export.py``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file

from model.data import corpus, tokenizer
from model.data.tokenizer import TextCodec
from model.glam.config import GLaMConfig
from model.glam.transformer import GLaM
from model.training import checkpoint
from winnow import files

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


@dataclass(frozen=True)
class Trained:
    """A trained model, in evaluation mode; ``sequence_length`` is that of its training rows."""

    model: GLaM
    codec: TextCodec
    sequence_length: int


def load(path: str, device: torch.device, dtype: torch.dtype) -> Trained:
    """The newest checkpoint of a training run, a given checkpoint, or an exported model.

    Args:
        path: the output folder of ``model/train.py``, one of its ``checkpoints/step_…``, or the
            output folder of ``model/export.py``.
        device: where the model goes.
        dtype: of activations and products.

    Raises:
        ValueError: there is no model, it is damaged, or its tokenizer is missing.
    """
    if os.path.exists(os.path.join(path, WEIGHTS)):
        if not os.path.exists(os.path.join(path, CONFIG)):
            raise ValueError(f"{path} is not a finished export: it has no {CONFIG}")
        about = files.read_json(os.path.join(path, CONFIG))
        try:
            model = _build(about["glam"], dtype)
            weights = load_file(os.path.join(path, WEIGHTS))
            model.load_state_dict({n.removeprefix("glam."): w for n, w in weights.items()})
            folder, boundary, length = path, about["boundary"], about["sequence_length"]
        except (KeyError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"the model in {path} is damaged ({error}): export it again"
            ) from error
    else:
        found = checkpoint.resolve(path)
        model = _build(found.state["model"], dtype)
        checkpoint.load(found, checkpoint.tensors(model))
        folder = os.path.dirname(os.path.dirname(os.path.abspath(found.path)))
        boundary = found.state["boundary"]
        length = found.state["identity"]["data.sequence_length"]
    tokenizer_path = os.path.join(folder, corpus.TOKENIZER)
    if not os.path.exists(tokenizer_path):
        raise ValueError(f"{folder} has no {corpus.TOKENIZER}: copy that of the corpus there")
    codec = tokenizer.load(tokenizer_path, boundary)
    return Trained(model.to(device).eval(), codec, length)


def _build(config: Mapping[str, Any], dtype: torch.dtype) -> GLaM:
    schema = OmegaConf.structured(GLaMConfig)
    checked = cast(GLaMConfig, OmegaConf.to_object(OmegaConf.merge(schema, config)))
    return GLaM(checked, compute_dtype=dtype)
