"""Run one job: training and evaluation in separate processes, so that jobs share no state.

::

    STUDY/ARM/seed_N/
      training.yaml   the full config of model/train.py
      training/       output of model/train.py; an interrupted job resumes from its checkpoints
      tasks/          output of ablations/evaluate.py by shots; absent without tasks
      *.log           output of both processes
      result.json …   files of :mod:`ablations.study_files.results`
"""

import contextlib
import json
import os
import subprocess
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

from ablations import near_duplicates
from ablations.reading import read_declaration
from ablations.study import interruption
from ablations.study.design import held_out_groups, study_tasks, trunk
from ablations.study.design.jobs import Job, identity, training_config, uses_scores
from ablations.study.design.trunk import IDENTITY
from ablations.study.job_process import ROOT, JobFailedError, log_of, run_python
from ablations.study_files import results
from ablations.study_files.results import Result
from model.data import corpus as corpora
from model.data.corpus import Corpus, open_corpus
from model.training import outcome as outcomes
from model.training.metrics_log import METRICS
from model.training.outcome import HELDOUT, HELDOUT_SCHEMA, Outcome, bits_per_byte
from model.training.train_config import differing
from winnow.commands import overrides
from winnow.filesystem import storage, tables

SCORING_FLOPS = 10.0
"""FLOPs per scored byte: hashing and looking up two n-grams per word, rounded up. A filtered arm is
charged for the whole pool."""


def execute(job: Job, threads: int) -> None:
    """Run or resume a job, unless the study is stopping; errors go to its failure record."""
    if trunk.is_spare(job.config) or interruption.stop_requested(job.config.output):
        return
    corpus = open_corpus(job.config.corpus)
    declared = read_declaration(job.config.output)
    training = training_config(job, declared.mixture_of(job.config.arm))
    try:
        trunk_hash = trunk.finished_hash(job.config)
    except ValueError as error:
        results.write_failure(job.config.output, job.key, str(error), traceback.format_exc())
        return
    job_identity = identity(job, training, corpus, trunk_hash, declared.harness)
    check_identity(job, job_identity)
    if all(storage.exists(storage.join(job.folder, name)) for name in (IDENTITY, results.RESULT)):
        return
    interruption.ignore_signals()
    rank = join_processes()
    try:
        write_config(job, training, job_identity)
        train(job.folder, threads, rank, job.config.output)
        tasks = evaluate_tasks(job, threads, rank, declared.harness) if job.is_arm else None
        if rank == 0:
            write_results(job, corpus, results.config_hash(job_identity), tasks)
    except interruption.StoppedError:
        return
    except Exception as error:
        log = error.log if isinstance(error, JobFailedError) else traceback.format_exc()
        results.write_failure(job.config.output, job.key, str(error), log)


def check_identity(job: Job, current: Mapping[str, Any]) -> None:
    """A ValueError if a job's folder has a run with other settings."""
    path = storage.join(job.folder, IDENTITY)
    if not storage.exists(path):
        return
    old, new = storage.read_json(path), json.loads(json.dumps(current))
    if different := differing(old, new):
        changes = "; ".join(f"{k}: {old.get(k)} then, {new.get(k)} now" for k in different)
        raise ValueError(
            f"{job.folder} has a run with other settings ({changes}): choose another output=DIR,"
            " or delete that folder"
        )


def join_processes() -> int:
    """The rank of this process; with several Slurm tasks, set torch's environment as torchrun does.

    All tasks train and evaluate the model together; rank 0 does the rest.
    """
    if os.environ.get("SLURM_NTASKS", "1") == "1":
        return 0
    from submitit.helpers import TorchDistributedEnvironment

    return int(TorchDistributedEnvironment().export(set_cuda_visible_devices=False).rank)


def write_config(job: Job, training: Mapping[str, Any], job_identity: Mapping[str, Any]) -> None:
    """Write the job's config and identity, and remove an earlier failure record."""
    failure = storage.join(job.folder, results.FAILURE)
    if storage.exists(failure):
        storage.remove(failure)
    write_training_file(job.folder, training)
    storage.write_json(storage.join(job.folder, IDENTITY), job_identity)


def write_training_file(folder: str, training: Mapping[str, Any]) -> None:
    """Write ``training.yaml``, a config file for ``model/train.py``."""
    hydra = {"run": {"dir": "."}, "output_subdir": None}
    quiet = [{f"override hydra/{name}_logging": "disabled"} for name in ("job", "hydra")]
    config = {"defaults": ["train_schema", "_self_", *quiet], **training, "hydra": hydra}
    content = yaml.safe_dump(config, sort_keys=False).encode()
    storage.write_bytes(storage.join(folder, "training.yaml"), content)


def train(folder: str, threads: int, rank: int = 0, study: str | None = None) -> None:
    """Train or resume with the folder's ``training.yaml``, as one of several processes."""
    config = ["--config-dir", os.path.abspath(folder), "--config-name", "training"]
    run_python("model/train.py", config, log_of(folder, "training", rank), threads, study)


@contextlib.contextmanager
def offset_master_port(offset: int) -> Iterator[None]:
    """Shift ``MASTER_PORT``, if set, to avoid connections to processes of a job's previous step."""
    port = os.environ.get("MASTER_PORT")
    if port is None:
        yield
        return
    os.environ["MASTER_PORT"] = str(int(port) + offset)
    try:
        yield
    finally:
        os.environ["MASTER_PORT"] = port


def evaluate_tasks(
    job: Job, threads: int, rank: int = 0, harness: Mapping[str, Any] | None = None
) -> pa.Table | None:
    """The scores on the study's tasks, on rank 0; None without tasks.

    Raises:
        ValueError: a task of lm-evaluation-harness is not as declared (``harness``).
    """
    tasks = job.config.tasks
    scores = []
    log = log_of(job.folder, "evaluation", rank)
    fixed = {name: getattr(tasks, name) for name in ("limit", "local", "places", "cache")}
    fixed |= {"run": os.path.join(job.folder, "training"), "device": job.config.train.device}
    columns = {shots: names for shots, names in study_tasks.tasks_by_shots(tasks).items() if names}
    for number, (shots, names) in enumerate(columns.items(), 1):
        output = os.path.join(job.folder, "tasks", f"shots_{shots}")
        settings = {**fixed, "output": output, "tasks": names, "shots": shots}
        arguments = [f"{name}={_quote(value)}" for name, value in settings.items()]
        with offset_master_port(number):
            run_python("ablations/evaluate.py", arguments, log, threads, job.config.output)
        if rank == 0:
            if harness:
                about = storage.read_json(os.path.join(output, results.EVALUATION))
                study_tasks.check_unchanged(about["tasks"], harness)
            scores.append(tables.read(os.path.join(output, results.TASKS_FILE)))
    return pa.concat_tables(scores) if scores else None


def write_results(job: Job, corpus: Corpus, config_hash: str, tasks: pa.Table | None) -> Result:
    folder = os.path.join(job.folder, "training")
    outcome = read_outcome(folder)
    near = near_duplicates.of_study(corpus, job.config.output)
    evaluated = tables.read(os.path.join(folder, HELDOUT)).cast(HELDOUT_SCHEMA)
    unseen = near_duplicates.remove(evaluated, corpus, near)
    heldout = held_out_groups.drop_small_sources(held_out_groups.with_junk(unseen, corpus))
    earlier_flops = trunk.flops(job.config)
    if uses_scores(job):
        earlier_flops += SCORING_FLOPS * float(corpus.bytes[corpus.pool & corpus.filterable].sum())
    copy_metrics(folder, job.folder, earlier_flops)
    result = Result(
        *job.key,
        config_hash=config_hash,
        model=job.model,
        flops=outcome.flops + earlier_flops,
        kwh=job.config.hardware.kwh(outcome.wall_seconds),
        kwh_basis="estimated",
        heldout=bits_per_byte(heldout),
        provenance=provenance(job, corpus, outcome)
        | {"near_duplicates_left_out": near_duplicates.by_source(corpus, near)},
        **{
            name: getattr(outcome, name)
            for name in (
                *("parameters_total", "parameters_active", "tokens", "unique_tokens", "epochs"),
                *("learning_rate", "wall_seconds"),
            )
        },
    )
    results.write_run(job.config.output, result, heldout, tasks)
    return result


def read_outcome(folder: str) -> Outcome:
    """The outcome of a training run; a ValueError without one."""
    if (outcome := outcomes.read(folder)) is None:
        raise ValueError(f"{folder} has no outcome: run the same command again")
    return outcome


def copy_metrics(training: str, folder: str, earlier_flops: float) -> None:
    """Copy the training curve, adding the FLOPs spent before training."""
    with open(os.path.join(training, METRICS), "rb") as file:
        rows = [json.loads(line) for line in file]
    lines = [json.dumps(row | {"flops": row["flops"] + earlier_flops}) + "\n" for row in rows]
    storage.write_bytes(storage.join(folder, results.CURVE), "".join(lines).encode())


def provenance(job: Job, corpus: Corpus, outcome: Outcome) -> dict[str, Any]:
    """What a result was made from, for ``result.json``."""
    manifest = corpus.manifest
    return {
        "commit": commit(),
        "corpus": {
            "fingerprint": corpus.fingerprint,
            "scored": manifest["scored"],
            "classifier": manifest["classifier"],
            "shards": {shard["name"]: shard["checksum"] for shard in manifest["shards"]},
            "pool": corpora.tally(corpus, corpus.pool),
        },
        "arm": dict(corpus.arm(job.config.data.arm).about),
        "training": {
            name: getattr(outcome, name)
            for name in ("device", "precision", "peak_memory_bytes", "skipped_steps", "fallbacks")
        },
        **({"start": outcome.start} if outcome.start else {}),
        **study_tasks.provenance(read_declaration(job.config.output).harness),
        "watts": job.config.hardware.watts,
        "co2e_kg_per_kwh": job.config.hardware.co2e_kg_per_kwh,
    }


def commit() -> str | None:
    """The commit of this code, with ``+changes`` if the tree is dirty; None outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", ROOT, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
    except subprocess.CalledProcessError:
        return None
    return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def _quote(value: Any) -> str:
    """A value in the syntax of Hydra's command line."""
    if isinstance(value, str):
        return overrides.quote(value)
    if isinstance(value, Sequence):
        return f"[{','.join(map(_quote, value))}]"
    return "null" if value is None else str(value)
