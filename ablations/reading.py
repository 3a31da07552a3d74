"""Read a study eagerly and validate it against :mod:`ablations.study_files.results`.

Incomplete jobs (failed, unfinished, missing) are listed, never dropped. An invalid file is an error
that names the file and the remedy.
"""

import dataclasses
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
from ablations.tasks.task import FEW, shots_of
from model.training.outcome import HELDOUT, HELDOUT_SCHEMA, bits_per_byte
from winnow.filesystem import storage, tables


def read_study(path: str) -> Study:
    """Read and validate a study.

    Raises:
        ValueError: a file is invalid, seeds of an arm differ in config, or runs were evaluated on
            different documents or items. The message names the file or job.
    """
    declared = read_declaration(path)
    runs: dict[JobKey, Run] = {}
    failed: dict[JobKey, str] = {}
    unfinished, missing = [], []
    for arm in declared.arms:
        for variant in declared.variants:
            for seed in declared.seeds:
                job = JobKey(arm, variant, seed)
                folder = job.folder(path)
                if storage.exists(storage.join(folder, RESULT)):
                    runs[job] = _read_run(folder, job)
                elif storage.exists(storage.join(folder, FAILURE)):
                    failed[job] = _read_failure(folder)
                elif _is_started(folder):
                    unfinished.append(job)
                else:
                    missing.append(job)
    _check_configs(runs)
    _check_same_items(path, runs)
    _check_shots(path, declared, runs)
    contamination = CONTAMINATION.empty_table()
    file = storage.join(path, CONTAMINATION_FILE)
    if storage.exists(file):
        contamination = _read_table(file, CONTAMINATION, ["task", "item", "arm"])
    trunks = _read_trunks(path, declared, failed)
    return Study(declared, runs, failed, unfinished, missing, contamination, trunks=trunks)


def read_declaration(path: str) -> Declaration:
    """Read ``study.yaml`` of a study.

    Raises:
        ValueError: it is missing, of another format, or has wrong or missing keys.
    """
    file = storage.join(path, DECLARATION)
    if not storage.exists(file):
        raise ValueError(f"{path} has no study.yaml: give the folder that ablations/run.py wrote")
    value = yaml.safe_load(storage.read_bytes(file))
    if not isinstance(value, dict):
        raise ValueError(f"{file} is not a mapping of keys to values")
    if not isinstance(value.get("primary"), dict):
        raise ValueError(f"{file} declares no primary contrast")
    primary: Primary = _build(Primary, value["primary"], f"{file}: primary")
    fields = {**value, "primary": primary}
    if isinstance(value.get("compare"), dict):
        fields["compare"] = _build(Compare, value["compare"], f"{file}: compare")
    if isinstance(value.get("swarm"), dict):
        fields["swarm"] = _build(Swarm, value["swarm"], f"{file}: swarm")
    declared: Declaration = _build(Declaration, fields, file, versioned=True)
    return declared


def _is_started(folder: str) -> bool:
    """Whether a job's folder exists; in a bucket, whether it holds any file."""
    if storage.scheme(folder) is None:
        return os.path.isdir(folder)
    return next(iter(storage.tree(folder)), None) is not None


def _read_trunks(path: str, declared: Declaration, failed: dict[JobKey, str]) -> dict[JobKey, Run]:
    """The complete trunks of a study, if any; failed ones are added to ``failed``."""
    if "trunk_tokens" not in declared.budget:
        return {}
    trunks = {}
    for job in [JobKey(TRUNK, v, seed) for v in declared.variants for seed in declared.seeds]:
        folder = job.folder(path)
        if storage.exists(storage.join(folder, RESULT)):
            trunks[job] = _read_run(folder, job)
        elif storage.exists(storage.join(folder, FAILURE)):
            failed[job] = _read_failure(folder)
    return trunks


def _read_failure(folder: str) -> str:
    return str(_read_json(storage.join(folder, FAILURE))["error"])


def _read_run(folder: str, job: JobKey) -> Run:
    path = storage.join(folder, RESULT)
    result: Result = _build(Result, _read_json(path), path, versioned=True)
    if result.key != job:
        raise ValueError(f"{path} is of {result.key.name}: was the folder moved?")
    heldout = _read_table(storage.join(folder, HELDOUT), HELDOUT_SCHEMA, ["source", "document"])
    measured = bits_per_byte(heldout)
    if measured.keys() != result.heldout.keys() or any(
        not math.isclose(measured[s], result.heldout[s], rel_tol=1e-9) for s in measured
    ):
        raise ValueError(f"{path} and heldout.arrow disagree on bits per byte: run the job again")
    tasks = TASKS.empty_table()
    if storage.exists(storage.join(folder, TASKS_FILE)):
        tasks = _read_table(
            storage.join(folder, TASKS_FILE), TASKS, ["task", "shots", "metric", "item"]
        )
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
        raise ValueError(
            f"{path}: an evaluation without {error}; see ablations/study_files/results.py"
        ) from None


def _read_table(path: str, schema: pa.Schema, keys: Sequence[str]) -> pa.Table:
    if not storage.exists(path):
        raise ValueError(f"{path} is missing beside its result.json: run the job again")
    table = tables.read(path)
    if not table.schema.equals(schema):
        raise ValueError(
            f"{path} has columns {table.schema.names}, expected {schema.names}, with their types"
        )
    for field in schema:
        if (
            pa.types.is_floating(field.type)
            and not pc.all(pc.is_finite(table[field.name]), min_count=0).as_py()
        ):
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
    fields = {f.name: f for f in dataclasses.fields(kind)}
    values = {k: v for k, v in value.items() if not (versioned and k == "format")}
    if unknown := sorted(values.keys() - fields.keys()):
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; known: {', '.join(fields)}")
    required = {
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
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
    reference: tuple[str, Run] | None = None
    for job, run in runs.items():
        folder = job.folder(path)
        if reference is None:
            reference = folder, run
        for name, table, other, keys in (
            ("documents", run.heldout, reference[1].heldout, ["source", "document", "bytes"]),
            (
                "task items",
                run.tasks,
                reference[1].tasks,
                ["task", "shots", "metric", "item", "cluster"],
            ),
        ):
            if not table.select(keys).equals(other.select(keys)):
                raise ValueError(
                    f"{folder} and {reference[0]} were evaluated on different {name}:"
                    " evaluate both again on the same"
                )


def _check_shots(path: str, declared: Declaration, runs: Mapping[JobKey, Run]) -> None:
    """Check that the shots of all answers are declared, so that pages omit none."""
    for job, run in runs.items():
        for task, _, shots in run.scores:
            numbers = [int(column) for column in declared.shots if column != FEW]
            if shots not in numbers and not (
                FEW in declared.shots and shots_of(task, FEW) == shots
            ):
                raise ValueError(
                    f"{job.folder(path)} has answers of {task} with {shots} shots, which is"
                    f" none of the columns {list(declared.shots)} in study.yaml: add it to shots"
                )
