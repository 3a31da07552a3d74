r"""Evaluate a trained model on tasks; write its answers and their scores.

python ablations/evaluate.py run=run/ tasks=[arc_e,piqa,blimp] shots=0 local=DIR
torchrun --nproc-per-node 8 ablations/evaluate.py run=run/    # for a model larger than one GPU

Defaults are in ``conf/evaluate.yaml``. Writes to the run's folder (or ``output``):

    logprobs.arrow      every choice's log-probability (:data:`ablations.tasks.responses.LOGPROBS`)
    generations.arrow   every generated answer (:data:`ablations.tasks.responses.GENERATIONS`)
    tasks.arrow         every item's scores (:data:`ablations.study_files.results.TASKS`)
    evaluation.json     request, data sources, scores with intervals, and tasks not run, with
                        reasons; written last
"""

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig

from ablations.evaluation.evaluation import Evaluation, EvaluationRequest, evaluate_sets, gather
from ablations.evaluation.token_model import BATCH_TOKENS, load_model
from ablations.study_files.results import EVALUATION
from ablations.tasks.data_sources import CACHE, DataSources
from ablations.tasks.scores import Score
from ablations.tasks.task import select
from ablations.tasks.task_set import TaskSet
from model.training import hardware
from model.training.distributed import processes
from winnow.commands import command_line, overrides
from winnow.filesystem import storage, tables

FORMAT = 1


@dataclass
class EvaluateConfig:
    """Settings of ``ablations/evaluate.py``, explained in ``conf/evaluate.yaml``."""

    run: str = MISSING
    output: str | None = None
    tasks: list[str] = field(default_factory=list)
    shots: Any = MISSING
    limit: int | None = None
    seed: int = MISSING
    places: list[str] = field(default_factory=list)
    local: str | None = None
    cache: str = CACHE
    device: str = MISSING
    precision: str = MISSING
    patience: float = MISSING
    batch_tokens: int = BATCH_TOKENS
    length: int | None = None


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Evaluate a run's model on the configured tasks, and write the answers.

    Processes of ``torchrun`` share the model; the first one reads data and writes.

    Raises:
        ValueError: a task, a data source or the run is missing or malformed.
    """
    request = EvaluationRequest(select(config.tasks), config.shots, config.limit, config.seed)
    where = DataSources(config.places, config.local, config.cache)
    device = processes.join(hardware.find_device(config.device), config.patience)
    sizes = config.batch_tokens, config.length
    model = load_model(config.run, str(device), config.precision, *sizes)
    sets, not_run = processes.from_first(lambda: gather(request, where))
    evaluation = evaluate_sets(model, sets, not_run, progress=_progress)
    about = {"asked": dataclasses.asdict(request), "run": config.run}
    if processes.is_first():
        write(config.output or config.run, evaluation, about)
    return evaluation


def write(folder: str, evaluation: Evaluation, about: dict[str, Any]) -> None:
    """Write the tables, then their description."""
    for name in ("logprobs", "generations", "tasks"):
        tables.write(storage.join(folder, f"{name}.arrow"), getattr(evaluation, name))
    value = {"format": FORMAT, **about, **evaluation.about}
    storage.write_json(storage.join(folder, EVALUATION), value)


def table(scores: Sequence[Score], not_run: dict[str, str]) -> str:
    """Scores, and tasks not run, for a terminal."""
    lines = [f"{'task':18} {'shots':>5} {'metric':22} {'items':>6} {'score':>7}  95 % interval"]
    for score in scores:
        line = f"{score.task:18} {score.shots:>5} {score.metric:22} {score.items:>6}"
        line += f" {score.value:7.4f}"
        if score.low is not None and score.high is not None:
            line += f"  {score.low:.4f} to {score.high:.4f}"
        if score.at_chance:
            line += f"  at chance ({score.chance:.4f})"
        lines.append(line)
    lines += [f"{name:18} not run: {reason}" for name, reason in not_run.items()]
    return "\n".join(lines)


def _progress(sets: Sequence[TaskSet]) -> Iterator[TaskSet]:
    """Show on a terminal which task is running."""
    shows = sys.stderr.isatty() and processes.is_first()
    for number, each in enumerate(sets, 1):
        start = time.perf_counter()
        if shows:
            print(f"{number}/{len(sets)} {each.name}: {len(each.items)} items", end=" ",
                  file=sys.stderr, flush=True)  # fmt: skip
        yield each
        if shows:
            print(f"in {time.perf_counter() - start:.0f} s", file=sys.stderr)


ConfigStore.instance().store(name="evaluate_schema", node=EvaluateConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    command_line.run(_evaluate_and_print, config)


def _evaluate_and_print(config: EvaluateConfig) -> None:
    evaluation = evaluate(config)
    first = processes.is_first()
    processes.leave()
    if not first:
        return
    print(table(evaluation.summary, evaluation.about["not_run"]))
    for name, about in evaluation.about["tasks"].items():
        if about["truncated_contexts"]:
            print(f"{name:18} {about['truncated_contexts']} contexts were truncated at the start")


if __name__ == "__main__":
    overrides.run(main, "evaluate")
