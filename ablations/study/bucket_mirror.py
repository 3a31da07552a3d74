"""Studies in a bucket: run in a local folder that is mirrored there.

Jobs lock, append to and memory-map files, so they need a local folder. The mirror
(:mod:`winnow.filesystem.mirror`) uploads each complete checkpoint, and a job's result after its
tables. A machine that resumes the study downloads all but the checkpoints of finished jobs.
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
    # Arms start from the checkpoint of a finished trunk.
    settled=re.compile(rf"(?!{TRUNK}[@/]){_JOB}/{_RESULT}"),
)


def use_local_folder(config: DictConfig, stack: ExitStack) -> str:
    """Redirect a sweep with output in a bucket to a local folder; return the configured ``output``.

    ``stack`` holds the lock on the bucket's folder; closing it uploads the rest.

    Raises:
        ValueError: another run is writing there.
        OSError: the bucket can't be read.
    """
    output = str(config.output).rstrip("/")
    if storage.scheme(output) is not None:
        local = stack.enter_context(mirror.working_folder(output, LAYOUT))
        overridden = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        assert isinstance(overridden, list)
        with flag_override(config, ["readonly", "struct"], False):
            config.output = local
            # Each job composes its own config.
            config.hydra.overrides.task = [*overridden, f"output={overrides.literal(local)}"]
    return output
