"""Writes the files of an exported model; :mod:`model.export` lists them."""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig
from tokenizers import Tokenizer, processors
from torch import Tensor

from model.data import corpus
from model.data.tokenizer import TextCodec
from model.training.checkpoints import trained
from model.training.checkpoints.trained import Stored
from model.training.distributed import processes
from winnow.commands import command_line, console
from winnow.filesystem import files, storage

WRAPPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "glam", "modeling_glam.py")


@dataclass
class ExportConfig:
    """Settings of ``model/export.py``; ``conf/export.yaml`` explains them."""

    checkpoint: str = MISSING
    output: str = MISSING


def export(config: ExportConfig) -> None:
    """Write the folder, ``config.json`` last. A failure leaves nothing behind.

    Raises:
        ValueError: no such model, the output is not empty, or there are several processes.
        OSError: a bucket can't be read or written.
    """
    if processes.are_several():
        raise ValueError(
            "a single process can export a model of any size: start it without torchrun"
        )
    output = config.output
    if next(iter(storage.tree(output)), None) is not None:
        raise ValueError(f"{output} is not empty: choose another output")
    with console.doing(f"reading {config.checkpoint}"):
        stored = trained.find(config.checkpoint)
    try:
        if storage.scheme(output) is None:
            _write(stored, output)
            return
        with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
            _write(stored, folder)
            for name in sorted(storage.tree(folder), key=lambda name: name == trained.CONFIG):
                with console.doing(f"uploading {name}"):
                    storage.upload(os.path.join(folder, name), storage.join(output, name))
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            storage.remove(output)
        raise


def _write(stored: Stored, folder: str) -> None:
    shapes = {
        f"glam.{name}": shape for name, shape in sorted(trained.shapes(stored.config).items())
    }

    def read(name: str) -> Tensor:
        whole = torch.empty(shapes[name])
        stored.fill({name.removeprefix("glam."): whole})
        return whole

    with (
        console.doing(f"writing {sum(map(math.prod, shapes.values())):,} weights"),
        files.open_output(os.path.join(folder, trained.WEIGHTS)) as file,
    ):
        write_safetensors(file, shapes, read)
    shutil.copyfile(WRAPPER, os.path.join(folder, os.path.basename(WRAPPER)))
    with files.open_output(os.path.join(folder, corpus.TOKENIZER)) as file:
        file.write(tokenizer_json(stored.codec).encode())
    boundary = stored.codec.boundary
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": boundary,
        "eos_token": boundary,
        "pad_token": boundary,  # masked, so any token would do
        "padding_side": "left",  # for generation
        "split_special_tokens": True,  # a text that spells the boundary is text
        "model_max_length": stored.sequence_length,
        "clean_up_tokenization_spaces": False,
    }
    storage.write_json(os.path.join(folder, "tokenizer_config.json"), tokenizer_config)
    storage.write_json(os.path.join(folder, trained.CONFIG), description(stored))


def write_safetensors(
    file: BinaryIO, shapes: Mapping[str, Sequence[int]], read: Callable[[str], Tensor]
) -> None:
    """Write float32 tensors one at a time, byte for byte as ``safetensors.save``.

    The length of the header (uint64, little-endian), the header in JSON, padded to 8 bytes, and the
    tensors, little-endian and row-major, at the offsets in the header. ``shapes`` are sorted by
    name; ``read`` returns the tensor of a name.

    Raises:
        ValueError: a tensor's shape or dtype is wrong.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": [*shape], "data_offsets": [begin, end]}
    content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    content += b" " * (-len(content) % 8)
    file.write(len(content).to_bytes(8, "little") + content)
    for name, shape in shapes.items():
        values = read(name).numpy()
        if values.shape != tuple(shape) or values.dtype != "<f4":
            raise ValueError(f"{name} is {[*values.shape]} of {values.dtype}, not {[*shape]}")
        file.write(values.data)
        del values  # before reading the next


def tokenizer_json(codec: TextCodec) -> str:
    """The tokenizer, changed to put the boundary before each text, as in training.

    Its own post-processing, truncation and padding are dropped: training did not use them.
    """
    tokenizer = Tokenizer.from_str(codec.tokenizer.to_str())
    token = {"id": "boundary", "ids": [codec.boundary_id], "tokens": [codec.boundary]}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="boundary $A", pair="boundary $A boundary:1 $B:1", special_tokens=[token]
    )
    return tokenizer.to_str(pretty=True)


def description(stored: Stored) -> dict[str, Any]:
    """The content of ``config.json``.

    It has no ``model_type``; modeling_glam.py has. AutoTokenizer would warn of an unknown one.
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
        "tie_word_embeddings": False,  # a single matrix: nothing to tie
        "boundary": stored.codec.boundary,
        "sequence_length": stored.sequence_length,
        "glam": dataclasses.asdict(stored.config),
    }


@command_line.main("export")
def main(config: DictConfig) -> None:
    command_line.run(_export_and_report, config)


def _export_and_report(config: ExportConfig) -> None:
    export(config)
    size = sum(map(storage.size, storage.listing(config.output)))
    print(f"{config.output}: {size / 1e6:,.1f} MB in {console.duration(console.elapsed())}")
    print(
        f"next: transformers.AutoModelForCausalLM.from_pretrained({config.output!r},"
        " trust_remote_code=True)"
    )


ConfigStore.instance().store(name="export_schema", node=ExportConfig)
