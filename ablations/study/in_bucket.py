"""Studies in a bucket: run in a local folder, from which what is whole is uploaded.

Jobs lock, append to and map files of a disk, so the study's folder is one on this machine. It is
mirrored (:mod:`winnow.filesystem.mirror`): checkpoints as they are made, each job's result after
its tables. Another machine fetches what the study needs to go on, which is not the checkpoints of
finished jobs.
"""

import re
from contextlib import ExitStack

from omegaconf import DictConfig, OmegaConf, flag_override

from ablations.study_files.results import DECLARATION, FAILURE, RESULT, TRUNK
from winnow.commands import overrides
from winnow.filesystem import mirror, storage

_JOB = r"[^/]+/seed_\d+"
_RESULT = re.escape(RESULT)

LAYOUT = mirror.Layout(
    ours=re.compile(
        rf"({_JOB}|comparison|figures)/.*|near_duplicates-\w+\.arrow|contamination\.(arrow|json)"
        r"|study\.yaml|multirun\.yaml|report\.html|run\.log"
    ),
    units=re.compile(rf"{_JOB}/training/checkpoints/step_\d{{9}}"),
    last=re.compile(rf"{re.escape(DECLARATION)}|{_JOB}/({_RESULT}|{re.escape(FAILURE)})"),
    sign=re.compile(re.escape(DECLARATION)),
    # Arms begin from the checkpoint of a finished trunk.
    settled=re.compile(rf"(?!{TRUNK}[@/]){_JOB}/{_RESULT}"),
)


def place(config: DictConfig, held: ExitStack) -> str:
    """Let a sweep whose output is in a bucket run in a local folder, mirrored there.

    Args:
        config: of the whole sweep, with its ``hydra`` node.
        held: locks the bucket's folder, and uploads what is left when it closes.

    Returns:
        ``output`` as it was given.

    Raises:
        ValueError: another run is writing there.
        OSError: the bucket can't be read.
    """
    output = str(config.output).rstrip("/")
    if storage.scheme(output) is not None:
        local = held.enter_context(mirror.working_folder(output, LAYOUT))
        given = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        assert isinstance(given, list)
        with flag_override(config, ["readonly", "struct"], False):
            config.output = local
            # Each job composes its own config.
            config.hydra.overrides.task = [*given, f"output={overrides.literal(local)}"]
    return output
