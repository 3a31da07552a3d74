"""The terminal, TensorBoard, and Weights & Biases, whose stand-in keeps what it gets."""

import importlib.machinery
import json
import resource
import sys
import types

import pytest
from training_runs import break_off_before, config, rows, train

from model.training import metrics_log
from model.training.metrics_log import METRICS, MetricsLog


class Server(types.ModuleType):
    """wandb, as far as we use it. Of a run, a step that is not after the last one is an error here,
    where wandb would warn and drop it."""

    Settings = staticmethod(dict)

    class Error(Exception):
        pass

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.starts, self.rows, self.ends = [], {}, []

    def init(self, **options):
        self.starts.append(options)
        rows = self.rows.setdefault(options["id"], {})
        assert options["resume"] == "allow" or not rows
        return Session(self, rows)


class Session:
    def __init__(self, server, rows):
        self.server, self.rows = server, rows
        self.starting_step = max(rows) + 1 if rows else 0

    def log(self, data, step, commit):
        assert commit  # else the last one waits for the next
        assert step > max(self.rows, default=0)
        self.rows[step] = data

    def finish(self, exit_code):
        self.server.ends.append(exit_code)


@pytest.fixture
def wandb(monkeypatch):
    server = Server()
    monkeypatch.setitem(sys.modules, "wandb", server)
    return server


def numbers(output):
    """Those of each line of metrics.jsonl, by step and then by name, read in another way."""

    def flat(value, name):
        if isinstance(value, dict):
            return [pair for key in value for pair in flat(value[key], [*name, key])]
        if isinstance(value, list):
            return [pair for i, item in enumerate(value) for pair in flat(item, [*name, str(i)])]
        return [] if value is None else [("/".join(name), value)]

    lines = map(json.loads, (output / METRICS).read_text().splitlines())
    return {row["step"]: dict(flat(row, [])) for row in lines}


def breaks_off(monkeypatch, corpus, output, step, *options):
    """Train up to where this step would be made, and there it ends."""
    with monkeypatch.context() as context:
        break_off_before(context, step)
        with pytest.raises(KeyboardInterrupt):
            train(corpus, output, *options)


def test_it_gets_the_rows_of_metrics_jsonl_and_the_settings(wandb, corpus, tmp_path):
    train(corpus, tmp_path / "run", "log.wandb=study")
    (start,) = wandb.starts
    assert wandb.rows[start["id"]] == numbers(tmp_path / "run")
    assert {"heldout/web", "expert_load/0/3"} <= set(wandb.rows[start["id"]][8])
    assert wandb.ends == [0]
    assert (start["project"], start["dir"]) == ("study", str(tmp_path / "run"))
    settings = start["config"]
    assert settings["data"]["arm"] == "unfiltered"
    assert json.loads(json.dumps(settings)) == settings  # plain values


def test_a_number_that_is_not_finite_is_left_out(wandb, tmp_path):
    log = MetricsLog(str(tmp_path), 0, tensorboard=False, wandb="study")
    log.write({"step": 1, "loss": float("nan"), "heldout": {"web": float("inf"), "wiki": 1.0}})
    log.close()
    (rows,) = wandb.rows.values()
    assert rows == {1: {"step": 1.0, "heldout/wiki": 1.0}}


def test_a_run_that_broke_off_goes_on_there_too(wandb, corpus, tmp_path, monkeypatch):
    """Steps 4 and 5, after the checkpoint, are taken again: there they stay as they were."""
    options = ["log.wandb=study", "checkpoint.every=3"]
    breaks_off(monkeypatch, corpus, tmp_path, 6, *options)
    assert wandb.ends == [1]
    ((name, before),) = wandb.rows.items()
    before = dict(before)
    assert list(before) == [1, 2, 3, 4, 5]
    train(corpus, tmp_path, *options)
    assert list(wandb.rows) == [name]
    assert list(wandb.rows[name]) == list(range(1, 9))
    assert {step: wandb.rows[name][step] for step in before} == before
    assert {step: row["loss"] for step, row in wandb.rows[name].items()} == {
        step: row["loss"] for step, row in numbers(tmp_path).items()
    }
    assert wandb.ends == [1, 0]


def test_without_a_checkpoint_it_begins_anew_there_too(wandb, corpus, tmp_path, monkeypatch):
    options = ["log.wandb=study", "checkpoint.every=3"]
    breaks_off(monkeypatch, corpus, tmp_path, 3, *options)
    train(corpus, tmp_path, *options)
    assert [list(rows) for rows in wandb.rows.values()] == [[1, 2], list(range(1, 9))]


def test_two_runs_are_two(wandb, corpus, tmp_path):
    for name in ("a", "b"):
        train(corpus, tmp_path / name, "log.wandb=study", "train.tokens=128")
    assert [list(rows) for rows in wandb.rows.values()] == [[1, 2], [1, 2]]


def test_only_the_first_process_and_only_if_asked(wandb, corpus, tmp_path):
    log = MetricsLog(str(tmp_path), 0, tensorboard=False, wandb="study", active=False)
    log.write({"step": 1, "loss": 1.0})
    log.close()
    train(corpus, tmp_path, "train.tokens=128")
    assert not wandb.starts


def test_the_package_is_missed_before_anything_is_done(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install 'winnow-lm\[wandb\]'"):
        config(corpus, tmp_path / "run", "log.wandb=study")
    train(corpus, tmp_path / "run", "train.tokens=64")  # not asked for, not missed


def test_a_refusal_comes_before_the_first_step(wandb, corpus, tmp_path, monkeypatch):
    def refuse(**_):
        raise wandb.Error("no key")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ValueError, match=r"no key\nSet WANDB_MODE=offline"):
        train(corpus, tmp_path, "log.wandb=study")
    assert not (tmp_path / METRICS).exists()
    train(corpus, tmp_path, "train.tokens=64")  # the folder was not spoilt


def test_a_log_file_gets_a_line_every_half_minute(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: now)
    line = metrics_log.ProgressLine(steps=20, step=0)
    for step in range(1, 7):
        now += 20.0
        line.update({"step": step, "loss": 1.0, "tokens_per_second": 1234.0})
    line.close()
    assert capsys.readouterr().err.splitlines() == [
        f"step {step} of 20  loss 1.000  1,234 tokens/s  {left} left"
        for step, left in ((2, "6:00"), (4, "5:20"), (6, "4:40"))
    ]


def test_a_terminal_gets_one_line_written_over(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: now)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line = metrics_log.ProgressLine(steps=20, step=4)  # resumed
    for step in (5, 6, 7):
        now += 0.3
        line.update({"step": step, "loss": 1.0, "tokens_per_second": 1234.0})
    line.close()
    said = capsys.readouterr().err.split("\r\x1b[K")
    assert [text[:12] for text in said[1:]] == ["step 5 of 20", "step 7 of 20", ""]
    assert said[2].endswith("0:03 left")  # 13 steps of 0.3 s


def test_tensorboard_shows_the_same_numbers(corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(corpus, tmp_path, "log.tensorboard=true", "train.tokens=256")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [event.value for event in events.Scalars("loss")]
    assert shown == pytest.approx([row["loss"] for row in rows(tmp_path)])
    assert "heldout/web" in events.Tags()["scalars"]


def test_tensorboard_shows_each_step_once_after_a_kill(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "tensorboard"
    first = metrics_log.EventFile(str(folder), 0)
    for step in range(1, 8):
        first.write(step, {"loss": float(step)})
    first.close()
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    monkeypatch.setattr(metrics_log.time, "time", lambda: 4e9)  # another second: another name
    second = metrics_log.EventFile(str(folder), 4)
    for step in range(5, 9):
        second.write(step, {"loss": -float(step)})
    second.close()
    events = EventAccumulator(str(folder))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert shown == [(step, step if step < 5 else -step) for step in range(1, 9)]


@pytest.mark.parametrize(("tensorboard", "name"), [(True, "events.out.tfev"), (False, "metrics")])
def test_a_full_disk_is_named_with_the_file(tmp_path, tensorboard, name):
    """A limit on the size of files, since a full disk takes a file system of one's own."""
    log = metrics_log.MetricsLog(str(tmp_path), 0, tensorboard)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = 5000  # the file for TensorBoard is the first to be larger
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        with pytest.raises(OSError, match=name):
            for step in range(1, 1000):
                log.write({"step": step, "loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        log.close()
