"""A checkpoint of ``model/train.py`` as a :class:`ablations.tasks.language_model.LanguageModel`."""

import json
import os
from typing import cast

from omegaconf import OmegaConf

from ablations.tasks.language_model import TokenModel
from model import checkpoint, corpus, hardware, tokenizer
from model.config import GLaMConfig
from model.glam import GLaM
from model.train_config import Precision


def load(
    run: str, *, device: str, precision: str, batch_tokens: int, length: int | None
) -> TokenModel:
    """The newest checkpoint of a training run, or the one that is named.

    Args:
        run: the output folder of ``model/train.py``, or one of its ``checkpoints/step_…``.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``fp32`` or ``bf16``, of activations.
        batch_tokens: of a padded batch.
        length: tokens of a sequence at most; None: as it was trained.

    Raises:
        ValueError: there is no checkpoint, it is damaged, or its tokenizer is missing.
    """
    found = checkpoint.resolve(run)
    schema = OmegaConf.structured(GLaMConfig)
    config = cast(GLaMConfig, OmegaConf.to_object(OmegaConf.merge(schema, found.state["model"])))
    place = hardware.find_device(device)
    dtype = hardware.compute_dtype(Precision(precision), place)
    model = GLaM(config, compute_dtype=dtype)
    checkpoint.load(found, checkpoint.tensors(model))
    path = _tokenizer(found.path)
    codec = tokenizer.load(path, _boundary(path))
    trained = int(found.state["identity"]["data.sequence_length"])
    return TokenModel(model.to(place).eval(), codec, length or trained, batch_tokens)


def _tokenizer(checkpoint_folder: str) -> str:
    """``tokenizer.json`` of the run that a checkpoint lies in."""
    run = os.path.dirname(os.path.dirname(os.path.abspath(checkpoint_folder)))
    return os.path.join(run, corpus.TOKENIZER)


def _boundary(path: str) -> str:
    """The one special token of a tokenizer.json.

    Raises:
        ValueError: it has none or several, so that none can be told to be the boundary.
    """
    if not os.path.exists(path):
        raise ValueError(f"{path} is missing: evaluate the folder that model/train.py wrote")
    with open(path, "rb") as file:
        special = [t["content"] for t in json.load(file)["added_tokens"] if t["special"]]
    if len(special) != 1:
        raise ValueError(f"{path} has the special tokens {special}: leave the boundary alone")
    return str(special[0])
