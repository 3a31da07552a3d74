"""A model out of the folder in which ``model/train.py`` left it, with its tokenizer."""

import os
from dataclasses import dataclass
from typing import cast

import torch
from omegaconf import OmegaConf

from model import checkpoint, corpus, tokenizer
from model.config import GLaMConfig
from model.glam import GLaM
from model.tokenizer import TextCodec


@dataclass(frozen=True)
class Trained:
    """A trained model, in evaluation mode; ``sequence_length`` is that of its training rows."""

    model: GLaM
    codec: TextCodec
    sequence_length: int


def load(path: str, device: torch.device, dtype: torch.dtype) -> Trained:
    """The newest checkpoint of a training run, or the one that is named.

    Args:
        path: the output folder of ``model/train.py``, or one of its ``checkpoints/step_…``.
        device: where the model goes.
        dtype: of activations and products.

    Raises:
        ValueError: there is no checkpoint, it is damaged, or its tokenizer is missing.
    """
    found = checkpoint.resolve(path)
    schema = OmegaConf.structured(GLaMConfig)
    config = cast(GLaMConfig, OmegaConf.to_object(OmegaConf.merge(schema, found.state["model"])))
    model = GLaM(config, compute_dtype=dtype)
    checkpoint.load(found, checkpoint.tensors(model))
    run = os.path.dirname(os.path.dirname(os.path.abspath(found.path)))
    codec = tokenizer.load(os.path.join(run, corpus.TOKENIZER), found.state["boundary"])
    length = found.state["identity"]["data.sequence_length"]
    return Trained(model.to(device).eval(), codec, length)
