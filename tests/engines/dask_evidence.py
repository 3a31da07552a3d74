"""What Beam's DaskRunner gets wrong, on a scheduler and two worker processes over TCP.

pip install 'apache-beam[dask]==2.77.0'
python tests/engines/dask_evidence.py
"""

import contextlib
import io
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dask.dask_runner import DaskRunner
from distributed import Client

# Last, because tests/ has a "distributed" too.
sys.path.extend(
    str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "tests", "tests/helpers")
)
from corpora import fingerprints
from engines_services import process, write_inputs

from pipeline.beam import graph
from pipeline.config import load
from pipeline.core.plan import plan_tasks
from pipeline.output import records
from pipeline.runs import execution, scoring_run


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A scheduler and two workers; yields its address."""
    flags = ["--no-dashboard", f"--scheduler-file={folder / 'scheduler.json'}"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads=1"]
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    quiet = {"stderr": (folder / "log.txt").open("w"), "cwd": folder}
    with contextlib.ExitStack() as stack:
        for command in (scheduler, worker, worker):
            stack.enter_context(process(*command, *flags, **quiet))
        with Client(scheduler_file=str(folder / "scheduler.json"), timeout="60s") as client:
            client.wait_for_workers(2, timeout=60)
            yield client.scheduler.address


def attempt(name: str, address: str, build: Callable[[beam.Pipeline], None]) -> None:
    """Run a pipeline and print how it ended."""
    options = PipelineOptions([f"--dask_client_address={address}", "--dask_partition_size=1"])
    pipeline = beam.Pipeline(DaskRunner(), options)
    build(pipeline)
    result = pipeline.run()
    try:
        result.wait_until_finish()
        print(f"{name}: ended without an error")
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}")
    finally:
        result.client.close()


def lines(path: Path) -> list[str]:
    return sorted(path.read_text().split()) if path.exists() else []


def append(item: object, path: str) -> object:
    with open(path, "a") as file:
        file.write(f"{item}\n")
    return item


def tagged(pipeline: beam.Pipeline, folder: Path) -> None:
    def split(i: int) -> Iterator[object]:
        yield beam.pvalue.TaggedOutput("odd", i) if i % 2 else i

    outputs = pipeline | beam.Create(range(6)) | beam.ParDo(split).with_outputs("odd", main="even")
    both = (
        outputs.even | "even" >> beam.Map(append, f"{folder}/even"),
        outputs.odd | "odd" >> beam.Map(append, f"{folder}/odd"),
    )
    _ = both | beam.Flatten()


def branches(pipeline: beam.Pipeline, folder: Path) -> None:
    numbers = pipeline | beam.Create(range(3))
    _ = numbers | "first" >> beam.Map(append, f"{folder}/first")
    _ = numbers | "second" >> beam.Map(append, f"{folder}/second")


def side_input(pipeline: beam.Pipeline, folder: Path) -> None:
    numbers = pipeline | beam.Create(range(3)) | beam.Map(append, f"{folder}/done")
    total = numbers | beam.GroupBy(lambda _: 0) | "Sum" >> beam.MapTuple(lambda _, some: sum(some))
    _ = (
        numbers
        | "Again" >> beam.GroupBy(lambda i: i)
        | "Use"
        >> beam.Map(
            lambda pair, total: append(pair[0] + total, f"{folder}/used"),
            beam.pvalue.AsSingleton(total),
        )
    )


def spread(pipeline: beam.Pipeline, folder: Path) -> None:
    _ = (
        pipeline
        | beam.Create(["tasks"])
        | beam.FlatMap(lambda _: range(16))
        | beam.GroupBy(lambda i: i)
        | beam.Map(lambda _: append(os.getpid(), f"{folder}/processes"))
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with cluster(folder) as address:
            attempt("tagged outputs", address, lambda p: tagged(p, folder))
            print("  even:", lines(folder / "even"), " odd:", lines(folder / "odd"))
            attempt("two branches", address, lambda p: branches(p, folder))
            print("  first:", lines(folder / "first"), " second:", lines(folder / "second"))
            attempt("side input", address, lambda p: side_input(p, folder))
            print("  step done:", dict(Counter(lines(folder / "done"))), lines(folder / "used"))
            attempt("spread", address, lambda p: spread(p, folder))
            print("  elements by process:", [*Counter(lines(folder / "processes")).values()])

            flags = write_inputs(folder / "inputs")
            for rule in (["--alpha=2"], ["--target-fraction=0.3", "--deduplicate"]):
                compare([*flags, *rule], folder / rule[0].strip("-"), address)


def compare(flags: list[str], folder: Path, address: str) -> None:
    """Run our graph by DirectRunner and by Dask, and print which files differ."""
    with contextlib.redirect_stdout(io.StringIO()):
        scoring_run.main([*flags, f"--output={folder}/direct"])
    config, resume, _ = load([*flags, f"--output={folder}/dask"])
    tasks = plan_tasks(config.source, config.filter, config.split_bytes)
    job, about = scoring_run.describe(config, tasks, resume)
    execution.prepare(config.output, about["key"], tasks, resume)
    records.save_tasks(job.sink.work, tasks)

    def build(pipeline: beam.Pipeline) -> None:
        graph.build(pipeline, len(tasks), job, config.decision, about)

    attempt(f"our graph, {folder.name}", address, build)
    direct, dask = fingerprints(folder / "direct"), fingerprints(folder / "dask")
    differ = [name for name in direct.keys() | dask.keys() if direct.get(name) != dask.get(name)]
    print(f"  {len(direct)} files of DirectRunner; these differ: {sorted(differ)}")


if __name__ == "__main__":
    main()
