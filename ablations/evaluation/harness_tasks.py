"""Tasks of lm-evaluation-harness: ``lm_eval:arc_easy``, ``lm_eval:my_task.yaml``.

The harness reads the data, renders prompts, draws demonstrations and scores answers; our model
answers as in our own tasks. A group or tag means all of its tasks.
"""

import contextlib
import difflib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ablations.evaluation import harness_requests, harness_scores
from ablations.evaluation.harness_requests import GENERATION, Request, Response, generation_settings
from ablations.evaluation.harness_scores import Judge
from ablations.tasks import responses
from ablations.tasks.data_sources import UnavailableError
from ablations.tasks.items import Item
from ablations.tasks.language_model import LanguageModel
from ablations.tasks.passages import clusters, passages_of
from ablations.tasks.task import FEW, HARNESS
from ablations.tasks.task_set import Answers, TaskSet, sample

SEEDS = (0, 1234)
"""Seeds of Python's and NumPy's generators while a task is loaded: the harness's defaults."""

Document = Mapping[str, Any]


@dataclass(frozen=True)
class HarnessTaskSet(TaskSet):
    """A task of the harness, which scores its answers.

    ``requests`` are those of all items in order, ``owners`` the index of each request's item. Only
    items with a known right answer have real choices. Processes that only answer have no ``judge``.
    """

    requests: Sequence[Request]
    owners: Sequence[int]
    judge: Judge | None

    def __getstate__(self) -> dict[str, Any]:
        """State for other processes: they answer, the first one scores."""
        return {**self.__dict__, "judge": None}

    def answers(self, model: LanguageModel) -> Answers:
        """Answer the harness's requests, and let it score them."""
        # Imported here because it needs torch, which processes that only start jobs don't load.
        from model.training.distributed import processes

        known = [item for item in self.items if any(item.correct)]
        pairs = [p for item in known for p in zip(item.contexts, item.continuations, strict=True)]
        answered, choices = harness_requests.answer(model, self.requests, pairs)
        unconditional = pa.nulls(len(pairs), pa.float64())
        logprobs = responses.choices_table(self.name, known, self.shots, choices, unconditional)
        rows = processes.from_first(lambda: self._scores(answered, logprobs))
        return Answers(logprobs, self._generations(answered), rows)

    def _generations(self, answered: Sequence[Response]) -> pa.Table:
        generated = [i for i, request in enumerate(self.requests) if request.kind == GENERATION]
        items = [self.items[self.owners[i]] for i in generated]
        texts = [str(answered[i]) for i in generated]
        return responses.generations_table(self.name, items, self.shots, texts)

    def _scores(self, answered: Sequence[Response], logprobs: pa.Table) -> pa.Table:
        assert self.judge is not None, "only the first process scores"
        try:
            values = self.judge.values(answered, self.owners)
        except Exception as error:
            raise ValueError(f"{self.name}: its scoring fails, {_summary(error)}") from error
        return harness_scores.table(self.name, self.shots, self.items, values, logprobs)


def task_sets(name: str, shots: int | str, limit: int | None, seed: int) -> list[TaskSet]:
    """The items of a task of the harness, or of all tasks of a group, by name with ``lm_eval:``.

    ``shots`` are as in ``--num_fewshot``, ``seed`` draws them, as the last one of ``--seed``.

    Raises:
        UnavailableError: the task takes no demonstrations, but some are requested.
        ValueError: no such task, its data can't be loaded, or our models can't answer its requests.
    """
    if shots == FEW:
        raise ValueError(f"{FEW} is GLaM's number of demonstrations: give {name} its own (shots=5)")
    return [_task_set(task, int(shots), limit, seed) for task in _open(name)]


def version() -> str:
    """The harness's version; a ValueError if it is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        extra = "pip install 'winnow-lm[harness]'"
        raise ValueError(f"tasks of lm-evaluation-harness need the extra: {extra}")
    return importlib.metadata.version("lm_eval")


def _open(name: str) -> list[Any]:
    installed = version()
    task = name.removeprefix(HARNESS)
    file = task.endswith((".yaml", ".yml"))
    if file and not os.path.isfile(task):
        raise ValueError(f"{name}: there is no file {task}")
    manager = _manager(not file)
    if not file and task not in manager.task_index:
        near = difflib.get_close_matches(task, manager.all_tasks)
        hint = f": did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"lm-eval {installed} has no task {task!r}{hint}")
    try:
        with _seeded():
            loaded = manager.load([task])
    except Exception as error:
        raise ValueError(
            f"{name} can't be loaded, {_summary(error)}. Its data must be on this machine or on a"
            " reachable hub; a copy of its YAML can name a local file (dataset_path:"
            " json, dataset_kwargs: {data_files: …})"
        ) from error
    return list(loaded["tasks"].values())


@functools.cache
def _manager(with_own_tasks: bool) -> Any:
    import datasets
    from lm_eval.tasks import TaskManager

    datasets.disable_progress_bars()
    return TaskManager(include_defaults=with_own_tasks)


def _task_set(task: Any, shots: int, limit: int | None, seed: int) -> TaskSet:
    name = HARNESS + str(task.config.task)
    if "/" in name:
        raise ValueError(f"{name!r} has a slash in its name: give it another one (task: …)")
    if shots and task.config.num_fewshot == 0:
        raise UnavailableError("the task takes no demonstrations (num_fewshot: 0)")
    if getattr(task, "MULTIMODAL", False) or getattr(task, "UNSAFE_CODE", False):
        raise ValueError(f"{name} shows pictures or runs code that a model wrote: leave it out")
    task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(seed)
    documents = list(task.eval_docs)
    numbers = sample([str(i) for i in range(len(documents))], limit)
    judge = Judge(task)
    try:
        with _seeded():
            instances = [_instances(task, documents[i], i, shots) for i in numbers]
            judge.instances = [instance for group in instances for instance in group]
            requests = [Request(each.request_type, each.args) for each in judge.instances]
            written = [r.arguments[1] for r in requests if r.kind == GENERATION]
            longest = max((generation_settings(s).max_tokens for s in written), default=0)
            passages = [passages_of(documents[i]) for i in numbers]
            passage_field, cluster_of = clusters(passages, numbers)
            items = [
                _item(judge, documents[i], str(i), cluster, group)
                for i, cluster, group in zip(numbers, cluster_of, instances, strict=True)
            ]
            judge.rehearse()
    except Exception as error:
        raise ValueError(f"{name} can't be run, {_summary(error)}") from error
    metrics, left_out = judge.metrics(items)
    if not metrics:
        raise ValueError(f"{name} has nothing to compare item by item: {left_out}")
    config = task.config
    about = {
        "title": name,
        "place": "lm-eval",
        "path": config.dataset_path,
        "items": len(items),
        "whole": len(items) == len(documents),
        "shots": shots,
        "seed": seed,
        "version": str(task.VERSION),
        "lm_eval": version(),
        "passages": passage_field,
        "metrics": metrics,
        "not_compared": left_out,
    }
    definition = [config.metric_list, config.filter_list, [documents[i] for i in numbers]]
    answers_of = [(item.id, item.correct, item.answers) for item in items]
    about["fingerprint"] = _fingerprint([definition, answers_of, requests])
    owners = [number for number, group in enumerate(instances) for _ in group]
    return HarnessTaskSet(name, shots, items, about, longest, requests, owners, judge)


def _instances(task: Any, document: Document, number: int, shots: int) -> list[Any]:
    """The harness's requests for a document, as in its ``build_all_requests``."""
    plain = {"apply_chat_template": False, "chat_template": None}
    how = {**plain, "system_instruction": None, "fewshot_as_multiturn": False}
    prefix = task.doc_to_prefix(document)
    context = task.fewshot_context(document, num_fewshot=shots, gen_prefix=prefix, **how)
    metadata = (task.config.task, number, task.config.repeats)
    instances = task.construct_requests(doc=document, ctx=context, metadata=metadata, **plain)
    return instances if isinstance(instances, list) else [instances]


def _item(
    judge: Judge, document: Document, name: str, group: str, instances: Sequence[Any]
) -> Item:
    """A document as an item: its choices if the right one is known, else its requests."""
    choices = judge.choices(document, [Request(one.request_type, one.args) for one in instances])
    contexts, continuations, correct = map(list, zip(*choices, strict=True))
    answers = [[text] for text in judge.answers(document)]
    return Item(name, group, contexts, continuations, correct, answers, demonstration="")


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Seed the global generators while a task is loaded, and restore them."""
    before = random.getstate(), np.random.get_state()
    random.seed(SEEDS[0])
    np.random.seed(SEEDS[1])
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _fingerprint(value: Any) -> str:
    """Sixteen hex digits of a SHA-256; functions count by name."""
    text = json.dumps(value, sort_keys=True, default=lambda x: getattr(x, "__qualname__", None))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _summary(error: Exception) -> str:
    """An error of the harness, its data or the task's code, in one line."""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}"
