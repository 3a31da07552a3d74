"""Training runs in a bucket: mirrored from a local folder, and read through local copies."""

import contextlib
import json
import os
import re
import sys
import uuid
from collections.abc import Iterator

import xxhash

from model.data import corpus
from model.training.checkpoints import checkpoint
from model.training.distributed import processes
from winnow.filesystem import files, local_copies, mirror, storage
from winnow.filesystem.local_copies import RemoteFile

LAYOUT = mirror.Layout(
    ours=re.compile(
        rf"({checkpoint.FOLDER}|tensorboard|wandb)/.*"
        r"|(config\.yaml|tokenizer\.json|metrics\.jsonl|heldout\.arrow|outcome\.json|run\.log)"
    ),
    units=re.compile(rf"{checkpoint.FOLDER}/step_\d{{9}}"),
    last=re.compile(r"outcome\.json"),
    sign=re.compile(rf"{checkpoint.FOLDER}/step_\d{{9}}/{checkpoint.MANIFEST}"),
)

_exports = contextlib.ExitStack()
"""Copies of exported models, deleted when the process ends."""


@contextlib.contextmanager
def output_on_disk(output: str) -> Iterator[str]:
    """The local folder that a run writes to: the output, or a folder mirrored to the bucket.

    All processes enter the block together; the first one uploads. Raises ValueError if another run
    is writing there, or the processes share no disk; OSError if the bucket can't be accessed.
    """
    if storage.scheme(output) is None:
        yield output
        return
    with contextlib.ExitStack() as held:
        local = processes.from_first(
            lambda: held.enter_context(mirror.working_folder(output, LAYOUT))
        )
        if not _is_shared(local):
            raise ValueError(
                f"output={output}: processes on several machines need a disk that they share: set"
                " WINNOW_CACHE to a folder there"
            )
        yield local


def _is_shared(folder: str) -> bool:
    """Whether all processes see the first one's folder, not a namesake on another machine."""
    drawn = processes.from_first(lambda: uuid.uuid4().hex)
    name = os.path.join(folder, f"{files.TEMPORARY}{drawn}")
    processes.from_first(lambda: open(name, "w").close())
    seen = processes.together(lambda: os.path.exists(name))
    if processes.is_first():
        os.remove(name)
    return all(seen)


def model_on_disk(path: str, weights: str | None = None) -> str:
    """The local path of a trained model: a run, one of its checkpoints, or an export.

    From a run in a bucket it copies the newest intact checkpoint, with a warning per damaged one.
    ``weights`` is the file that marks an export; None rejects exports. Raises ValueError without an
    intact checkpoint, OSError if the bucket can't be read.
    """
    if storage.scheme(path) is None:
        return path
    path = path.rstrip("/")
    if weights is not None and storage.exists(storage.join(path, weights)):
        return _exports.enter_context(storage.local_copy(path))
    with contextlib.suppress(FileNotFoundError):  # an active run has just deleted it
        return _checkpoint_on_disk(path)
    return _checkpoint_on_disk(path)


def _checkpoint_on_disk(path: str) -> str:
    run, chosen = path, ""
    folder, _, name = path.rpartition("/")
    if name == checkpoint.FOLDER:
        run = folder
    elif folder.endswith(f"/{checkpoint.FOLDER}"):
        run, chosen = folder.removesuffix(f"/{checkpoint.FOLDER}"), name
    whole = [
        name.removesuffix(f"/{checkpoint.MANIFEST}")
        for name in sorted(storage.tree(run), reverse=True)
        if LAYOUT.sign.fullmatch(name) and (not chosen or f"/{chosen}/" in name)
    ]
    for name in whole:
        try:
            return os.path.join(_copy(run, name), name)
        except local_copies.DamagedError as error:
            if processes.is_first():
                print(f"{error}{'' if chosen else '; trying the one before it'}", file=sys.stderr)
    if whole:
        raise ValueError(f"every checkpoint in {path} is damaged: train again")
    raise ValueError(
        f"{path} holds no checkpoint: give the output of model/train.py, or one of its"
        f" {checkpoint.FOLDER}/step_…"
    )


def _copy(run: str, name: str) -> str:
    """Copy a checkpoint and its run's tokenizer to a local folder with the run's layout."""
    content = storage.read_bytes(storage.join(run, name, checkpoint.MANIFEST))
    try:
        sums: dict[str, str] = json.loads(content)["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise local_copies.DamagedError(
            f"checkpoint {run}/{name} is damaged: {checkpoint.MANIFEST} has changed"
        ) from error
    tokenizer = storage.read_bytes(storage.join(run, corpus.TOKENIZER))
    wanted = {
        f"{name}/{checkpoint.MANIFEST}": _of_content(
            storage.join(run, name, checkpoint.MANIFEST), content
        ),
        corpus.TOKENIZER: _of_content(storage.join(run, corpus.TOKENIZER), tokenizer),
    }
    for file, checksum in sums.items():
        file = os.path.basename(file)
        path = storage.join(run, name, file)
        wanted[f"{name}/{file}"] = RemoteFile(path, storage.size(path), checksum)
    return local_copies.folder(run, wanted)


def _of_content(path: str, content: bytes) -> RemoteFile:
    return RemoteFile(path, len(content), xxhash.xxh3_128_hexdigest(content))
