"""Read logs of lm-evaluation-harness (0.4.3 and later, ``--log_samples``).

A folder has ``results_DATE.json`` and ``samples_TASK_DATE.jsonl``, with a line for each item and
filter: ``doc_id``, ``doc``, ``doc_hash``, ``prompt_hash``, ``target_hash``, ``filtered_resps``,
``filter`` (since 0.4.8) and each metric by its name.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablations.samples.scores import FloatArray, Score, score
from ablations.tasks.passages import clusters, passages_of
from winnow.filesystem import storage

_DATE = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?"
_RESULTS = re.compile(rf"(?:[^/]*_)?({_DATE})\.json")
_SAMPLES = re.compile(rf"samples_(.+)_({_DATE})\.jsonl?")

HASHES = ("doc_hash", "target_hash", "prompt_hash")

Metric = tuple[str, str]
"""A metric and its answer filter."""


@dataclass(frozen=True)
class TaskLog:
    """The items of a task that a model answered, in the order of the dataset.

    ``scores`` has each metric, or why it cannot be compared; ``reported`` the harness's figures;
    ``clusters`` the passage of each item, by the dataset's field ``passages`` (None: each item is
    its own); ``chance`` the expected score of guessing, if any.
    """

    place: str
    version: str
    shots: str
    settings: str
    documents: Sequence[int]
    hashes: Mapping[str, Sequence[str]]
    clusters: Sequence[str]
    passages: str | None
    chance: FloatArray | None
    scores: Mapping[Metric, Score | str]
    reported: Mapping[Metric, float]
    higher_is_better: Mapping[str, bool]


@dataclass(frozen=True)
class Evaluation:
    """A model's answers; ``prompting`` has the settings that shape prompts."""

    place: str
    model: str
    version: str
    prompting: Mapping[str, str]
    tasks: Mapping[str, TaskLog]


def read(path: str) -> Evaluation:
    """Read an evaluation from the folder ``--output_path`` or the model's folder in it, or from a
    ``results_DATE.json`` if a folder has several evaluations of a task.

    Raises:
        ValueError: none or more than one, or files are damaged or do not match.
    """
    folder, dates = _results(path)
    tasks: dict[str, TaskLog] = {}
    about: dict[str, Any] = {}
    samples = sorted(
        (match[1], match[2], sample_path)
        for sample_path in storage.listing(folder)
        if (match := _SAMPLES.fullmatch(sample_path.rpartition("/")[2]))
    )
    for date, file in dates.items():
        about = _json(file)
        for task, _, sample_path in (sample for sample in samples if sample[1] == date):
            if task in tasks:
                raise ValueError(
                    f"{folder} has several evaluations of {task}: name the results_DATE.json to use"
                )
            tasks[task] = _task(task, sample_path, about, file)
    if not tasks:
        raise ValueError(
            f"{path} has results but no samples_TASK_DATE.jsonl: evaluate with --log_samples"
        )
    model = str(about.get("model_name") or about.get("model_source") or "unknown")
    names = ("chat_template_sha", "system_instruction_sha", "fewshot_as_multiturn")
    prompting = {name: str(about.get(name)) for name in names}
    version = str(about.get("lm_eval_version") or "unknown")
    return Evaluation(path, model, version, prompting, tasks)


def _results(path: str) -> tuple[str, dict[str, str]]:
    """The folder of an evaluation, and its results files by date."""
    folder, _, name = path.rstrip("/").rpartition("/")
    if (match := _RESULTS.fullmatch(name)) and storage.exists(path):
        return folder or ".", {match[1]: path}
    by_folder: dict[str, dict[str, str]] = {}
    for file in storage.tree(path):
        inner, _, name = file.rpartition("/")
        if match := _RESULTS.fullmatch(name):
            parent = storage.join(path, inner) if inner else path
            by_folder.setdefault(parent, {})[match[1]] = storage.join(parent, name)
    if not by_folder:
        raise ValueError(
            f"{path} has no results_DATE.json: give the folder that lm-eval's --output_path named"
            " (lm-eval 0.4.3 or later)"
        )
    if len(by_folder) > 1:
        folders = ", ".join(sorted(by_folder))
        raise ValueError(f"{path} has results of several models: give one of {folders}")
    ((folder, dates),) = by_folder.items()
    return folder, dict(sorted(dates.items()))


def _task(task: str, path: str, about: Mapping[str, Any], file: str) -> TaskLog:
    figures = _figures(about, task, file)
    filters = list(dict.fromkeys(name for _, name in figures))
    rows = _by_filter(path, filters)
    documents = sorted(rows[next(iter(rows))])
    if any(sorted(by_item) != documents for by_item in rows.values()):
        raise ValueError(f"{path} has different items under different filters: is it truncated?")
    first = [rows[next(iter(rows))][i] for i in documents]
    counted = about.get("n-samples", {}).get(task, {}).get("effective")
    if counted is not None and counted != len(documents):
        raise ValueError(
            f"{path} has {len(documents)} items, and {file} says {counted}: a file is truncated or"
            " of another run"
        )
    config = about.get("configs", {}).get(task, {})
    metrics = config.get("metric_list") or ()
    means = {of.get("metric") for of in metrics if of.get("aggregation") == "mean"}
    scores: dict[Metric, Score | str] = {}
    for (metric, name), figure in figures.items():
        by_item = rows.get(name, {})
        if any(metric not in row for row in by_item.values()) or not by_item:
            scores[metric, name] = "its items are not in the samples"
            continue
        result = score(metric, [by_item[i][metric] for i in documents], figure)
        if isinstance(result, str) and metric in means and result.startswith("it is not"):
            raise ValueError(f"{path} does not match {file}: for {metric}, {result}")
        scores[metric, name] = result
    passages, groups = clusters([row["passages"] for row in first], documents)
    better = about.get("higher_is_better", {}).get(task, {})
    return TaskLog(
        place=path,
        version=str(about.get("versions", {}).get(task)),
        shots=str(about.get("n-shot", {}).get(task)),
        settings=json.dumps(config.get("generation_kwargs"), sort_keys=True),
        documents=documents,
        hashes={name: [str(row.get(name)) for row in first] for name in HASHES},
        clusters=groups,
        passages=passages,
        chance=_chance(config, first),
        scores=scores,
        reported={key: float(value) for key, value in figures.items() if _is_number(value)},
        higher_is_better={name: bool(up) for name, up in better.items() if up is not None},
    )


def _figures(about: Mapping[str, Any], task: str, file: str) -> dict[Metric, Any]:
    """The harness's figures of a task, from keys ``metric,filter``."""
    try:
        figures = about["results"][task]
    except KeyError:
        raise ValueError(f"{file} has no results of {task}, but there are samples of it") from None
    parted = {tuple(key.split(",", 1)): value for key, value in figures.items() if "," in key}
    return {(m, name): value for (m, name), value in parted.items() if not m.endswith("_stderr")}


def _by_filter(path: str, filters: Sequence[str]) -> dict[str, dict[int, dict[str, Any]]]:
    """The rows of a samples file by filter and item.

    Before 0.4.8 rows do not name their filter; an item's rows are in the order of the filters.
    """
    by_filter: dict[str, dict[int, dict[str, Any]]] = {}
    seen: dict[int, int] = {}
    for number, row in _rows(path):
        item = row.get("doc_id")
        lacking = next((name for name in ("doc_id", *HASHES) if row.get(name) is None), None)
        if lacking or not isinstance(item, int):
            raise ValueError(
                f"{path}, row {number} has no {lacking or 'whole number as doc_id'}, and items are"
                " paired by these: evaluate with lm-eval 0.4.3 or later"
            )
        turn = seen[item] = seen.get(item, 0) + 1
        name = row.get("filter") or (filters[turn - 1] if turn <= len(filters) else "none")
        by_item = by_filter.setdefault(str(name), {})
        if item in by_item:
            raise ValueError(f"{path} has item {item} twice: two runs wrote to one file")
        by_item[item] = row
    if not by_filter:
        raise ValueError(f"{path} is empty: evaluate again")
    return by_filter


def _rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file of JSON lines, or of one JSON list, without prompts."""
    with storage.open_input(path) as file:
        start = file.read(1)
        file.seek(0)
        rows = enumerate(json.loads(file.read()) if start == b"[" else file, 1)
        for number, line in rows:
            try:
                row = line if isinstance(line, dict) else json.loads(line)
            except ValueError:
                message = f"{path}, line {number} is not JSON: is the file truncated?"
                raise ValueError(message) from None
            doc = row.pop("doc", None)
            row.pop("arguments", None)
            row.pop("resps", None)
            row["choices"] = len(row.pop("filtered_resps", ()))
            row["passages"] = passages_of(doc)
            yield number, row


def _chance(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> FloatArray | None:
    if config.get("output_type") != "multiple_choice":
        return None
    choices = np.array([row["choices"] for row in rows], np.float64)
    if any("acc_mutual_info" in row for row in rows):
        choices /= 2  # each choice is scored again without its context
    return 1 / choices if choices.min() >= 2 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _json(path: str) -> dict[str, Any]:
    try:
        value = json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): evaluate again") from None
    if not isinstance(value, dict) or not isinstance(value.get("results"), dict):
        raise ValueError(f"{path} has no results: give a results_DATE.json of lm-eval")
    return value
