"""The files of an exported model; :mod:`model.export` lists them."""

import dataclasses
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig
from tokenizers import Tokenizer, processors
from torch import Tensor

from model import weights_file
from model.data import corpus
from model.data.tokenizer import TextCodec
from model.training.checkpoints import trained
from model.training.checkpoints.trained import Stored
from model.training.distributed import processes
from winnow.commands import command_line, telling
from winnow.filesystem import files, storage

WRAPPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "glam", "modeling_glam.py")


@dataclass
class ExportConfig:
    """What ``model/export.py`` is told; ``conf/export.yaml`` explains the fields."""

    checkpoint: str = MISSING
    output: str = MISSING


def export(config: ExportConfig) -> None:
    """Write the folder; ``config.json`` comes last. Nothing is left if that fails.

    Raises:
        ValueError: there is no such model, the output is not empty, or there are several processes.
        OSError: a bucket can't be read or written.
    """
    if processes.are_several():
        raise ValueError(
            "one process exports a model of any size, one tensor at a time: start it without"
            " torchrun"
        )
    if next(iter(storage.tree(config.output)), None) is not None:
        raise ValueError(f"{config.output} is not empty: choose another output")
    if storage.scheme(config.output) is None:
        _export(config)
        return
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        _export(dataclasses.replace(config, output=os.path.join(folder, "export")))
        _upload(os.path.join(folder, "export"), config.output)


def _upload(local: str, output: str) -> None:
    """Copy an export to a bucket; nothing is left there if that fails."""
    try:
        for name in sorted(storage.tree(local), key=lambda name: name == trained.CONFIG):
            with telling.doing(f"uploading {name}"):
                storage.upload(os.path.join(local, name), storage.join(output, name))
    except BaseException:
        storage.remove(output)
        raise


def _export(config: ExportConfig) -> None:
    """:func:`export` to a local folder."""
    with telling.doing(f"reading {config.checkpoint}"):
        stored = trained.find(config.checkpoint)
    try:
        _write(config, stored)
    except BaseException:
        shutil.rmtree(config.output, ignore_errors=True)
        raise


def _write(config: ExportConfig, stored: Stored) -> None:
    shapes = {f"glam.{name}": shape for name, shape in sorted(stored.shapes.items())}

    def read(name: str) -> Tensor:
        whole = torch.empty(shapes[name])
        stored.fill({name.removeprefix("glam."): whole})
        return whole

    with (
        telling.doing(f"writing {sum(map(math.prod, shapes.values())):,} weights"),
        files.open_output(os.path.join(config.output, trained.WEIGHTS)) as file,
    ):
        weights_file.write(file, shapes, read)
    shutil.copyfile(WRAPPER, os.path.join(config.output, os.path.basename(WRAPPER)))
    with files.open_output(os.path.join(config.output, corpus.TOKENIZER)) as file:
        file.write(tokenizer_json(stored.codec).encode())
    boundary = stored.codec.boundary
    storage.write_json(
        os.path.join(config.output, "tokenizer_config.json"),
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": boundary,
            "eos_token": boundary,
            "pad_token": boundary,  # masked, so any token would do
            "padding_side": "left",  # for generation
            "split_special_tokens": True,  # a text that spells the boundary is text
            "model_max_length": stored.sequence_length,
            "clean_up_tokenization_spaces": False,
        },
    )
    storage.write_json(os.path.join(config.output, trained.CONFIG), description(stored))


def tokenizer_json(codec: TextCodec) -> str:
    """The tokenizer, such that each text begins with the boundary, as in training.

    A given tokenizer's own additions, truncation and padding go: nothing was trained with them.
    """
    tokenizer = Tokenizer.from_str(codec.tokenizer.to_str())
    token = {"id": "boundary", "ids": [codec.boundary_id], "tokens": [codec.boundary]}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="boundary $A", pair="boundary $A boundary:1 $B:1", special_tokens=[token]
    )
    return tokenizer.to_str(pretty=True)


def description(stored: Stored) -> dict[str, Any]:
    """The content of ``config.json``.

    It names no ``model_type``: modeling_glam.py does. AutoTokenizer, which may not run that, would
    warn of one that it does not know.
    """
    return {
        "architectures": ["GLaMForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_glam.GLaMHubConfig",
            "AutoModelForCausalLM": "modeling_glam.GLaMForCausalLM",
        },
        "dtype": "float32",
        "vocab_size": stored.config.vocabulary,
        "bos_token_id": stored.codec.boundary_id,
        "eos_token_id": stored.codec.boundary_id,
        "pad_token_id": stored.codec.boundary_id,
        "tie_word_embeddings": False,  # there is one matrix only, so nothing to tie
        "boundary": stored.codec.boundary,
        "sequence_length": stored.sequence_length,
        "glam": dataclasses.asdict(stored.config),
    }


@command_line.main("export")
def main(config: DictConfig) -> None:
    """Export."""
    command_line.run(_export_and_tell, config)


def _export_and_tell(config: ExportConfig) -> None:
    export(config)
    size = sum(map(storage.size, storage.listing(config.output)))
    print(f"{config.output}: {size / 1e6:,.1f} MB in {telling.duration(telling.elapsed())}")
    print(
        f"next: transformers.AutoModelForCausalLM.from_pretrained({config.output!r},"
        " trust_remote_code=True)"
    )


ConfigStore.instance().store(name="export_schema", node=ExportConfig)
