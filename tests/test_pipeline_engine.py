"""How the pipeline uses Beam: its embedded runner with threads, around its faults."""

import time

import apache_beam as beam
import pytest

from pipeline import engine
from pipeline.progress import Watch


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


def test_all_cores_are_used_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(7)))
    assert engine.options([]).get_all_options()["direct_num_workers"] == 7
    assert engine.options(["--direct_num_workers=3"]).get_all_options()["direct_num_workers"] == 3
