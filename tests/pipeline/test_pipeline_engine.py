"""How the pipeline uses Beam: its embedded runner with threads, around its faults."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PortableOptions

from pipeline.beam import engine
from pipeline.beam.progress import Watch
from pipeline.readers import InputRange
from winnow import heartbeat

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


class Slow:
    """Takes longer to pickle than Beam's workers wait before they send what they have."""

    def __reduce__(self):
        time.sleep(1.3)
        return Slow, ()


def test_an_element_that_is_slow_to_encode_is_not_cut_in_two(tmp_path):
    def build(pipeline):
        _ = (
            pipeline
            | beam.Create(range(4))
            | beam.Map(lambda i: (i % 2, Slow()))
            | beam.GroupByKey()
            | beam.Map(lambda pair: (tmp_path / str(pair[0])).write_text(str(len(list(pair[1])))))
        )

    engine.run(engine.options(["--direct_num_workers=2"]), build, Watch(None, 0, 10))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "2", "1": "2"}


def test_the_message_of_a_failing_worker_is_its_own():
    def build(pipeline):
        _ = pipeline | beam.Create([0]) | beam.Map(lambda i: 1 // i)

    with pytest.raises(RuntimeError, match="ZeroDivisionError: integer division"):
        engine.run(engine.options(["--direct_num_workers=2"]), build, Watch(None, 0, 10))


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (OSError(28, "No space left on device", "a/b"), OSError, r"^\[Errno 28\] No space.*'a/b'$"),
        (UnicodeError("no such: thing"), ValueError, "^no such: thing$"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_a_user_can_mend_is_raised_as_that(raised, kind, said, workers):
    def fail(_):
        raise raised

    def build(pipeline):
        _ = pipeline | beam.Create([0]) | beam.Map(fail)

    with pytest.raises(kind, match=said):
        engine.run(engine.options([f"--direct_num_workers={workers}"]), build, Watch(None, 0, 10))


def test_all_cores_are_used_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(7)))
    assert engine.options([]).get_all_options()["direct_num_workers"] == 7
    assert engine.options(["--direct_num_workers=3"]).get_all_options()["direct_num_workers"] == 3


@pytest.mark.parametrize(
    ("flags", "inputs", "mode"),
    [
        ([], {"a.warc.gz": 99, "b.HTML": 29}, "multi_processing"),
        (
            [],
            {"a.arc": 99, "b.jsonl.gz": 90, "html.parquet": 90, "c.warc.wet.gz": 90},
            "multi_threading",
        ),
        (["--direct_running_mode=multi_threading"], {"a.warc": 128}, "multi_threading"),
        (["--direct_num_workers=1"], {"a.warc": 128}, "in_memory"),
    ],
)
def test_html_is_read_by_processes_where_there_is_much_of_it(monkeypatch, flags, inputs, mode):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    options = engine.options(flags)
    pieces = [InputRange(f"gs://b/{name}", 0, None, size << 20) for name, size in inputs.items()]
    engine.choose_processes(options, flags, pieces)
    assert options.get_all_options()["direct_running_mode"] == mode


COMMAND = """
import ctypes, time
import apache_beam as beam
from pipeline.beam import engine, progress
from winnow import heartbeat

def hang(library):
    with heartbeat.working_on("web/7.jsonl"):
        library(None).pause()

def slow():
    for _ in range(20):
        time.sleep(0.2)
        heartbeat.beat()

def main(flags):
    print("begun", flush=True)
    build = lambda pipeline: pipeline | beam.Create([0]) | beam.Map(lambda _: {work})
    engine.run(engine.options(flags), build, progress.Watch(None, 0, 0.1))

engine.exit_clearly(main)
"""


def start(folder, work, python=sys.executable):
    script = folder / "command.py"
    script.write_text(COMMAND.format(work=work))
    command = [python, script, "--direct_num_workers=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


@pytest.mark.parametrize(
    ("library", "message"),
    [
        ("CDLL", "error: nothing has moved for 0.1 minutes while working on web/7.jsonl"),
        ("PyDLL", "line 9 in hang"),  # it holds Python's lock: nobody is left to say more
    ],
)
def test_a_thread_that_hangs_ends_the_run(quick_python, tmp_path, library, message):
    with start(tmp_path, f"hang(ctypes.{library})", quick_python) as process:
        _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert message in said


def test_a_run_that_is_suspended_goes_on_however_long_it_was(tmp_path):
    with start(tmp_path, "slow()") as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(1)
        process.send_signal(signal.SIGTSTP)
        time.sleep(14)  # more than twice as long as nothing may move
        assert os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said


def test_a_run_that_is_slow_but_moves_goes_on():
    """Its work takes several times as long as nothing may move."""

    def slow(_):
        for _ in range(40):
            time.sleep(0.2)
            heartbeat.beat()

    def build(pipeline):
        _ = pipeline | beam.Create([0]) | beam.Map(slow)

    engine.run(engine.options(["--direct_num_workers=1"]), build, Watch(None, 0, 0.05))


def test_looks_are_counted_until_one_sees_something_new(tmp_path):
    watch = Watch(str(tmp_path / "signs"), 0, stall_minutes=10 * heartbeat.INTERVAL / 60)
    with watch.opened():
        for _ in range(9):
            watch.look()
        with heartbeat.working_on("web/7.jsonl"):
            for _ in range(10):  # the first sees something new
                watch.look()
            with pytest.raises(TimeoutError, match=r"working on web/7.jsonl .*--resume"):
                watch.look()
        watch.look()


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], 60_000),
        (["--environment_cache_millis=5"], "5"),
        (["--environment_cache_millis=0"], "0"),
    ],
)
def test_flink_and_spark_keep_an_idle_worker_unless_told_otherwise(said, kept):
    flags = ["--runner=PortableRunner", "--job_endpoint=localhost:1", *said]
    assert engine.options(flags).view_as(PortableOptions).environment_cache_millis == kept
