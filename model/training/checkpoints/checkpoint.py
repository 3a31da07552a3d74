"""Checkpoints: written atomically, verified before they are read, never unpickled.

::

    CHECKPOINTS/step_000001200/
      manifest.json     written last: checksums of the other files, and the non-tensor state
      .metadata         torch.distributed.checkpoint's index
      __0_0.distcp      tensors, one or more files per process

A checkpoint is written under a temporary name, synced and renamed. With
``torch.distributed.checkpoint`` M processes can read what N processes wrote. Its index is a pickle:
our unpickler accepts only the few classes that an index needs.
"""

import contextlib
import enum
import functools
import os
import pickle
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from model.training.distributed import processes
from winnow.filesystem import files, storage

FORMAT = 2
FOLDER = "checkpoints"
MANIFEST = "manifest.json"

_NAME = re.compile(r"^step_\d{9}$")
_TENSORS = re.compile(r"^__(\d+)_\d+\.distcp$")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; ``state`` is all but the tensors."""

    path: str
    state: Mapping[str, Any]


class DamagedError(ValueError):
    """A checkpoint's files are missing or have changed."""


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Tensor]:
    """The tensors to save or load into, not copies: ``model.NAME`` and ``optimizer.NAME.KEY``."""
    out = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    if optimizer is not None:
        for name, parameter in model.named_parameters():
            for key, value in optimizer.state[parameter].items():
                assert isinstance(value, Tensor)
                out[f"optimizer.{name}.{key}"] = value
    return out


def materialise(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Create a new optimizer's state, to load into, by a step with zero gradients.

    The parameters are restored.
    """
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), before, strict=True):
            parameter.copy_(value)


def save(
    folder: str,
    step: int,
    content: dict[str, Tensor],
    state: Mapping[str, Any],
    group: dist.ProcessGroup | None = None,
) -> None:
    """Write a checkpoint; every process of the group (None: the default group) calls this.

    ``content`` holds this process's shard of each tensor, ``state`` JSON values. Raises OSError if
    it can't be written; nothing is left of it then, and older checkpoints are intact.
    """
    path = os.path.join(folder, f"step_{step:09d}")
    temporary = os.path.join(folder, f"{files.TEMPORARY}step_{step:09d}")

    def prepare() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        os.makedirs(temporary)

    def finish() -> None:
        names = [name for name in os.listdir(temporary) if name not in sums]
        sums.update({name: storage.checksum(os.path.join(temporary, name)) for name in names})
        manifest = {"format": FORMAT, "step": step, "files": sums, "state": dict(state)}
        storage.write_json(os.path.join(temporary, MANIFEST), manifest)
        if os.path.exists(path):  # a damaged one
            shutil.rmtree(path)
        os.rename(temporary, path)
        _sync(folder)

    try:
        processes.from_first(prepare, group)
        with _no_warning_of_one_process():
            writer = FileSystemWriter(temporary)
            save_tensors(content, storage_writer=writer, process_group=group)
        own = processes.together(lambda: _sums(temporary, f"__{processes.rank()}_"), group)
        sums = {name: value for found in own for name, value in found.items()}
        processes.from_first(finish, group)
    except (OSError, CheckpointException) as error:
        if processes.is_first():
            shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            f"the checkpoint of step {step} can't be written to {folder} ({_cause(error)}): older"
            " checkpoints are intact; make room and run the same command again"
        ) from error


def _sums(folder: str, prefix: str) -> dict[str, str]:
    names = [name for name in os.listdir(folder) if name.startswith(prefix)]
    return {name: storage.checksum(os.path.join(folder, name)) for name in names}


def load(checkpoint: Checkpoint, content: dict[str, Tensor]) -> None:
    """Load tensors in place; raise ValueError if one is missing or the index has other classes."""
    loader(checkpoint)(content)


def loader(checkpoint: Checkpoint) -> Callable[[dict[str, Tensor]], None]:
    """A function like :func:`load` that reads the index only once."""
    reader = _Reader(checkpoint.path)

    def load_these(content: dict[str, Tensor]) -> None:
        try:
            with _no_warning_of_one_process():
                load_tensors(content, storage_reader=reader)
        except CheckpointException as error:
            raise ValueError(f"{checkpoint.path} can't be loaded: {_cause(error)}") from error

    return load_these


def verify(path: str) -> Checkpoint:
    """Verify the checksums of a checkpoint; every process checks a share of the files.

    Raises DamagedError on all processes if a file is missing or has changed, ValueError for another
    format.
    """
    return processes.together(lambda: _verify(path))[0]


def _verify(path: str) -> Checkpoint:
    manifest_path = os.path.join(path, MANIFEST)
    try:
        manifest = storage.read_json(manifest_path)
        sums: dict[str, str] = manifest["files"]
        form, state = manifest["format"], manifest["state"]
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is not a checkpoint: it has no {MANIFEST}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"checkpoint {path} is damaged: {MANIFEST} has changed") from error
    if form != FORMAT:
        raise ValueError(f"{manifest_path} has format {form}, this code reads {FORMAT}")
    for name, expected in sums.items():
        if _writer(name) % processes.count() != processes.rank():
            continue
        file = os.path.join(path, os.path.basename(name))
        if not os.path.exists(file) or storage.checksum(file) != expected:
            raise DamagedError(f"checkpoint {path} is damaged: {name} has changed or is missing")
    return Checkpoint(path, state)


def _writer(name: str) -> int:
    """The rank that wrote a file; in a group of the same size it also reads most of it."""
    found = _TENSORS.match(name)
    return int(found[1]) if found else 0


def newest(folder: str) -> Checkpoint | None:
    """The newest intact checkpoint, or None without any; raise ValueError if all are damaged."""
    paths = _paths(folder)
    for path in reversed(paths):
        try:
            return verify(path)
        except DamagedError as error:
            if processes.is_first():
                print(f"{error}; trying the one before it", file=sys.stderr)
    if paths:
        raise ValueError(
            f"every checkpoint in {folder} is damaged: delete the folder to train from the start"
        )
    return None


def resolve(path: str) -> Checkpoint:
    """The checkpoint at a path, or the newest of a run; raise ValueError if there is none."""
    path = os.path.normpath(path)
    if os.path.exists(os.path.join(path, MANIFEST)) and _NAME.match(os.path.basename(path)):
        return verify(path)
    for folder in (os.path.join(path, FOLDER), path):
        found = newest(folder)
        if found is not None:
            return found
    raise ValueError(
        f"{path} holds no checkpoint: give the output folder of model/train.py, or one of its"
        f" {FOLDER}/step_…"
    )


def prune(folder: str, keep: int) -> None:
    """Delete all but the newest checkpoints, and the leftovers of killed writers."""
    for path in _paths(folder)[:-keep]:
        _remove(path)
    for name in os.listdir(folder):
        if name.startswith(files.TEMPORARY):
            storage.remove(os.path.join(folder, name))


def remove(found: Checkpoint) -> None:
    processes.from_first(lambda: _remove(found.path))


def _remove(path: str) -> None:
    # The manifest first: without it a folder is no checkpoint. A killed run may have removed it.
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(path, MANIFEST))
    shutil.rmtree(path)


class _Reader(FileSystemReader):
    """Reads the index once, without unpickling anything that could run code."""

    @functools.cached_property
    def index(self) -> Metadata:
        with open(os.path.join(self.path, ".metadata"), "rb") as file:
            metadata: Metadata = _IndexUnpickler(file).load()
        return metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        self.index.storage_meta = StorageMeta(load_id=self.load_id)
        return self.index


class _IndexUnpickler(pickle.Unpickler):
    """Accepts only the classes of an index; torch.distributed.checkpoint unpickles anything."""

    KNOWN: ClassVar = {
        "pathlib": {"PosixPath"},
        "torch": {"Size", "float32", "bfloat16", "int64"},
        "torch.serialization": {"_get_layout"},
        "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
        "torch.distributed.checkpoint.metadata": {
            *("ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta"),
            *("TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
        },
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _member
        if name not in self.KNOWN.get(module, ()):
            raise ValueError(f"the checkpoint's index names {module}.{name}: refused")
        return super().find_class(module, name)


def _member(owner: Any, name: str) -> Any:
    """A member of an enum, which Python before 3.11.4 pickles as an attribute."""
    if not (isinstance(owner, type) and issubclass(owner, enum.Enum)):
        raise ValueError(f"the checkpoint's index names an attribute of {owner!r}: refused")
    return owner[name]


def _paths(folder: str) -> list[str]:
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in sorted(names) if _NAME.match(name)]


def _cause(error: BaseException) -> str:
    if isinstance(error, CheckpointException):
        return str(next(iter(error.failures.values()))[0])
    return str(error)


@contextlib.contextmanager
def _no_warning_of_one_process() -> Iterator[None]:
    """Suppress the warning about a missing process group, which one device does not need."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _sync(folder: str) -> None:
    """Make a rename in the folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
