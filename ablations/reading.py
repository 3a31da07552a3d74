"""Read a study and validate it against :mod:`ablations.study_files.results`.

Incomplete jobs (failed, unfinished, missing) are listed, never dropped.
"""

import inspect
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from ablations.study_files.results import (
    CONTAMINATION,
    CONTAMINATION_FILE,
    CURVE,
    DECLARATION,
    FAILURE,
    FORMAT,
    RESULT,
    TASKS,
    TASKS_FILE,
    TRUNK,
    Curve,
    Declaration,
    JobKey,
    Primary,
    Result,
    Run,
    Study,
)
from ablations.study_files.swarms import Swarm
from ablations.study_files.variant_choice import Compare
from ablations.tasks.task import shots_of
from model.training.outcome import HELDOUT, HELDOUT_SCHEMA, bits_per_byte
from winnow.filesystem import storage, tables

TASK_ITEM = ["task", "shots", "metric", "item"]
"""The columns that identify a row of ``tasks.arrow``."""


def read_study(path: str) -> Study:
    """Read and validate a study.

    Raises:
        ValueError: a file is invalid, seeds of an arm differ in config, or runs were evaluated on
            different documents or items.
    """
    declared = read_declaration(path)
    runs: dict[JobKey, Run] = {}
    trunks: dict[JobKey, Run] = {}
    failed: dict[JobKey, str] = {}
    unfinished: list[JobKey] = []
    missing: list[JobKey] = []
    names = [*declared.arms, *([TRUNK] if "trunk_tokens" in declared.budget else [])]
    keys = itertools.product(names, declared.variants, declared.seeds)
    for job in itertools.starmap(JobKey, keys):
        folder = job.folder(path)
        if storage.exists(storage.join(folder, RESULT)):
            (trunks if job.arm == TRUNK else runs)[job] = _read_run(folder, job)
        elif storage.exists(storage.join(folder, FAILURE)):
            failed[job] = str(_read_json(storage.join(folder, FAILURE))["error"])
        elif job.arm != TRUNK:
            (unfinished if _is_started(folder) else missing).append(job)
    _check_configs(runs)
    _check_same_items(path, runs)
    _check_shots(path, declared, runs)
    contamination = CONTAMINATION.empty_table()
    file = storage.join(path, CONTAMINATION_FILE)
    if storage.exists(file):
        contamination = _read_table(file, CONTAMINATION, ["task", "item", "arm"])
    return Study(declared, runs, failed, unfinished, missing, contamination, trunks=trunks)


def read_declaration(path: str) -> Declaration:
    """Read ``study.yaml``; a ValueError if it is missing or invalid."""
    file = storage.join(path, DECLARATION)
    if not storage.exists(file):
        raise ValueError(f"{path} has no study.yaml: give the folder that ablations/run.py wrote")
    value = yaml.safe_load(storage.read_bytes(file))
    if not isinstance(value, dict):
        raise ValueError(f"{file} is not a mapping of keys to values")
    if not isinstance(value.get("primary"), dict):
        raise ValueError(f"{file} declares no primary contrast")
    for name, kind in {"primary": Primary, "compare": Compare, "swarm": Swarm}.items():
        if isinstance(value.get(name), dict):
            value[name] = _build(kind, value[name], f"{file}: {name}")
    declared: Declaration = _build(Declaration, value, file, versioned=True)
    return declared


def _is_started(folder: str) -> bool:
    """Whether a job's folder exists; in a bucket, whether it holds any file."""
    if storage.scheme(folder) is None:
        return os.path.isdir(folder)
    return next(iter(storage.tree(folder)), None) is not None


def _read_run(folder: str, job: JobKey) -> Run:
    path = storage.join(folder, RESULT)
    result: Result = _build(Result, _read_json(path), path, versioned=True)
    if result.key != job:
        raise ValueError(f"{path} belongs to {result.key.name}: was the folder moved?")
    heldout = _read_table(storage.join(folder, HELDOUT), HELDOUT_SCHEMA, ["source", "document"])
    measured = bits_per_byte(heldout)
    if measured.keys() != result.heldout.keys() or any(
        not math.isclose(measured[s], result.heldout[s], rel_tol=1e-9) for s in measured
    ):
        raise ValueError(f"{path} and heldout.arrow disagree on bits per byte: run the job again")
    tasks, file = TASKS.empty_table(), storage.join(folder, TASKS_FILE)
    if storage.exists(file):
        tasks = _read_table(file, TASKS, TASK_ITEM)
    return Run(result, heldout, tasks, _read_curve(storage.join(folder, CURVE)))


def _read_curve(path: str) -> Curve | None:
    if not storage.exists(path):
        return None
    rows = []
    for number, line in enumerate(storage.read_bytes(path).splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            raise ValueError(f"{path}, line {number} is not JSON: run the job again") from None
        if "heldout" in row:
            rows.append(row)
    if not rows:
        return None
    try:
        tokens, unique_tokens, flops = (
            np.array([row[name] for row in rows], np.float64)
            for name in ("tokens", "unique_tokens", "flops")
        )
        heldout = {
            source: np.array([row["heldout"][source] for row in rows], np.float64)
            for source in rows[0]["heldout"]
        }
        return Curve(tokens, unique_tokens, flops, heldout)
    except KeyError as error:
        see = "see ablations/study_files/results.py"
        raise ValueError(f"{path}: an evaluation without {error}; {see}") from None


def _read_table(path: str, schema: pa.Schema, keys: Sequence[str]) -> pa.Table:
    if not storage.exists(path):
        raise ValueError(f"{path} is missing beside its result.json: run the job again")
    table = tables.read(path)
    if not table.schema.equals(schema):
        raise ValueError(
            f"{path} has columns {table.schema.names}, expected {schema.names}, with their types"
        )
    for field in filter(lambda field: pa.types.is_floating(field.type), schema):
        if not pc.all(pc.is_finite(table[field.name]), min_count=0).as_py():
            raise ValueError(f"{path} has a {field.name} that is not finite: run the job again")
    table = table.sort_by([(key, "ascending") for key in keys])
    if table.group_by(keys).aggregate([]).num_rows != table.num_rows:
        raise ValueError(f"{path} has two rows with the same ({', '.join(keys)})")
    return table


def _read_json(path: str) -> Any:
    try:
        return json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): run the job again") from None


def _build(kind: Any, value: Mapping[str, Any], where: str, versioned: bool = False) -> Any:
    """A dataclass from a mapping; errors name the file and the key."""
    if versioned and value.get("format") != FORMAT:
        raise ValueError(f"{where} has format {value.get('format')}, this code reads {FORMAT}")
    fields = inspect.signature(kind).parameters
    values = {k: v for k, v in value.items() if not (versioned and k == "format")}
    if unknown := sorted(values.keys() - fields.keys()):
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; known: {', '.join(fields)}")
    required = {name for name, f in fields.items() if f.default is f.empty}
    if absent := sorted(required - values.keys()):
        raise ValueError(f"{where}: {', '.join(absent)} is missing")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _check_configs(runs: Mapping[JobKey, Run]) -> None:
    first: dict[str, tuple[int, str]] = {}
    for job, run in runs.items():
        other, expected = first.setdefault(job.arm_name, (job.seed, run.result.config_hash))
        if run.result.config_hash != expected:
            raise ValueError(
                f"seeds {other} and {job.seed} of {job.arm_name} were run with"
                " different configs: run the arm again, or move the old seeds away"
            )


def _check_same_items(path: str, runs: Mapping[JobKey, Run]) -> None:
    for job, run in runs.items():
        first, reference = next(iter(runs.items()))
        for what, table, other, keys in (
            ("documents", run.heldout, reference.heldout, ["source", "document", "bytes"]),
            ("task items", run.tasks, reference.tasks, [*TASK_ITEM, "cluster"]),
        ):
            if not table.select(keys).equals(other.select(keys)):
                raise ValueError(
                    f"{job.folder(path)} and {first.folder(path)} were evaluated on different"
                    f" {what}: evaluate both again on the same"
                )


def _check_shots(path: str, declared: Declaration, runs: Mapping[JobKey, Run]) -> None:
    """Check that the shots of all answers are declared, so that pages show them all."""
    for job, run in runs.items():
        for task, _, shots in run.scores:
            if not any(shots_of(task, column) == shots for column in declared.shots):
                raise ValueError(
                    f"{job.folder(path)} has answers of {task} with {shots} shots, which is"
                    f" none of the columns {list(declared.shots)} in study.yaml: add it to shots"
                )
