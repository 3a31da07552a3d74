"""What Flink and Spark do to a run, as clusters of three machines, beside DirectRunner.

    make demo engines  # fetch the text and the engines
    sudo python tests/engines/clusters_compare.py formats --engine flink --megabytes 200
    sudo python tests/engines/clusters_compare.py slots --engine flink --megabytes 20
    sudo python tests/engines/clusters_compare.py small --engine flink --files 10000

- formats  64 files of uneven size in every format, with a known rule, a solved one, and one with
           exact duplicates: whether all files are byte-equal, CPU time and memory of each kind of
           process, bytes between the machines, and between an engine and our Python
- slots    the share of the text of these 64 files that each of 1, 2 and 4 slots does
- small    the measurements of formats over --files files of 5 documents each

A machine is a network namespace (`engines_machines`): one for the master, the job server and the
driver, and two for a worker of the engine and a pool for our Python each. Times are CPU seconds,
since all share the cores of one real machine; memory is the peak of the largest process of a kind.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.extend(
    str(Path(__file__).resolve().parents[2] / folder)
    for folder in ("", "tests", "tests/helpers", "benchmarks")
)
import engines
import engines_clusters
from engines_machines import Machine, in_own_network, machines
from engines_services import ROOT
from engines_usage import Usage, watched
from throughput import classifier

STARTS = {"flink": engines_clusters.flink, "spark": engines_clusters.spark}


def main() -> None:
    """Run one of the three measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["formats", "slots", "small"])
    parser.add_argument("--engine", choices=STARTS, required=True)
    parser.add_argument("--rules", nargs="+", choices=engines.RULES, default=list(engines.RULES))
    parser.add_argument("--megabytes", type=int, default=200, help="of text (default: 200)")
    parser.add_argument("--files", type=int, default=10_000, help="for small (default: 10000)")
    parser.add_argument("--slots", type=int, default=1, help="of each worker (default: 1)")
    parser.add_argument("--work", type=Path, default=ROOT / "cache" / "benchmark")
    flags = parser.parse_args()
    if reason := engines_clusters.missing(flags.engine):
        sys.exit(reason)
    in_own_network()
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"
    os.environ["OMP_NUM_THREADS"] = "1"
    if flags.what == "slots":
        slots(flags)
    else:
        compare(flags)


def compare(flags: argparse.Namespace) -> None:
    """Every rule, by DirectRunner and by the engine."""
    if flags.what == "small":
        corpus = engines.write_small(flags.work / f"small_{flags.files}", flags.files)
    else:
        place = flags.work / f"formats_{flags.megabytes}"
        corpus = engines.write_formats(place, flags.megabytes * 10**6)
    with cluster(flags, flags.slots, 2) as (engine, places):
        for rule in flags.rules:
            said = engines.RULES[rule]
            direct, output = flags.work / f"direct_{rule}", flags.work / f"{flags.engine}_output"
            usage = run(flags, corpus, direct, [*said, "--direct_num_workers=2"])
            print(f"{rule}, DirectRunner: {described(usage)}", flush=True)
            before = [place.received() for place in places]
            usage = run(flags, corpus, output, [*said, *engine.flags], engine)
            print(f"{rule}, {flags.engine}: {described(usage)}", flush=True)
            for number, place in enumerate(places):
                grown = {
                    name: f"{(n - before[number].get(name, 0)) / 1e6:.1f}"
                    for name, n in place.received().items()
                    if name in ("lo", "eth0")
                }
                print(f"  MB received by {place.address}: {grown}")
            if shuffled := exchanged(engine):
                print(f"  {shuffled} between the engine's steps", flush=True)
            count, digest = engines.digest_of(direct)
            same = engines.digest_of(output) == (count, digest)
            if not same:
                sys.exit(f"{direct} and {output} differ")
            print(f"  {count} files: byte-equal", flush=True)
            shutil.rmtree(direct)


def slots(flags: argparse.Namespace) -> None:
    """What share of the text each slot does."""
    place = flags.work / f"formats_{flags.megabytes}"
    corpus = engines.write_formats(place, flags.megabytes * 10**6)
    folder = flags.work / "slots"
    settings = flags.work / "slots.yaml"
    settings.write_text(json.dumps({"steps": {"watched_step.Watched": {"folder": str(folder)}}}))
    for workers, own in ((1, 1), (2, 1), (2, 2)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with cluster(flags, own, workers) as (engine, _):
            said = ["--alpha=2", f"--config={settings}", *engine.flags]
            run(flags, corpus, flags.work / f"{flags.engine}_output", said, engine)
        sizes = [
            sum(json.loads(line)[1] for line in path.read_text().splitlines())
            for path in folder.iterdir()
        ]
        shares = sorted((size / sum(sizes) for size in sizes), reverse=True)
        print(
            f"{flags.engine}, {workers} x {own} slots: {len(shares)} at work, shares of the text"
            f" {', '.join(f'{share:.0%}' for share in shares)}",
            flush=True,
        )


@contextmanager
def cluster(
    flags: argparse.Namespace, slots: int, workers: int
) -> Iterator[tuple[engines_clusters.Cluster, list[Machine]]]:
    """A cluster on a machine for each worker, and one more."""
    folder = flags.work / "cluster"
    shutil.rmtree(folder, ignore_errors=True)
    with machines(workers) as places, STARTS[flags.engine](folder, slots, places) as engine:
        yield engine, places


def run(
    flags: argparse.Namespace,
    corpus: Path,
    output: Path,
    own: list[str],
    engine: engines_clusters.Cluster | None = None,
) -> Usage:
    """One run, and what it and the cluster used."""
    shutil.rmtree(output, ignore_errors=True)
    scorer = classifier(flags.work, "hashed_linear")
    command = [sys.executable, str(ROOT / "pipeline" / "run.py"), f"--source=web={corpus}/*/*"]
    command += ["--filter=web", f"--classifier={scorer}", f"--output={output}", *own]
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    kinds = {p.pid: name for name, p in engine.processes.items()} if engine else {}
    with watched(lambda: kinds | {driver.pid: "driver"}) as usage:
        said, _ = driver.communicate()
    if driver.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{said[-4000:]}")
    return usage


def exchanged(engine: engines_clusters.Cluster) -> str:
    """What the steps of Flink's last job sent each other, as Flink reports it."""
    jobs = engine.ask("jobs/overview").get("jobs", [])
    if not jobs:
        return ""
    last = max(jobs, key=lambda job: job["start-time"])["jid"]
    sent = [step["metrics"] for step in engine.ask(f"jobs/{last}")["vertices"]]
    records, size = (sum(step[name] for step in sent) for name in ("write-records", "write-bytes"))
    return f"{records} records, {size / 1e6:.2f} MB"


def described(usage: Usage) -> str:
    """CPU time and memory of each kind of process."""
    whole = sum(usage.cpu(name) for name in usage.names())
    each = [
        f"{name} {usage.cpu(name):.1f} s, {usage.peak(name) / 1e6:.0f} MB" for name in usage.names()
    ]
    return f"{whole:.1f} CPU s ({'; '.join(each)})"


if __name__ == "__main__":
    main()
