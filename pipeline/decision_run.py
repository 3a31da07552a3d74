"""A run that decides anew from stored scores. See :mod:`pipeline.decide`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from pipeline.beam import engine, graph, progress, staging
from pipeline.config import Decision, load_decide
from pipeline.core.task import Sink
from pipeline.output import manifest, records
from pipeline.page.render import next_step, print_summary
from pipeline.scoring_run import prepare
from winnow import endings, files, storage, version


def main(arguments: Sequence[str]) -> None:
    """Decide and report; see ``--help``."""
    with endings.usage():
        config, resume, beam_flags = load_decide(arguments)
        options = engine.options(beam_flags)
    storage.configure(options)
    staging.check_paths(options, [config.scored, config.output])
    scored = manifest.read_manifest(config.scored)
    if scored["config"]["write"] != "all":
        raise ValueError(
            f"{config.scored} was written with --write kept: only a run that left the dropped"
            " documents in its shards can be decided anew"
        )
    config = replace(config, decision=as_it_kept_near_duplicates(config.decision, scored["config"]))
    sink = Sink(
        config.output,
        tuple(scored["config"]["metadata"]),
        config.write,
        config.shard_bytes,
        config.compression,
        scored["config"].get("near_duplicates", False),
    )
    # What the run dropped as a duplicate stays dropped.
    deduplicated = {"deduplicate": scored["config"]["decision"]["deduplicate"]}
    about = {
        "code": version.code_version(),
        "config": scored["config"]
        | {"decision": asdict(config.decision) | deduplicated, "write": config.write}
        | {"scored": {"path": config.scored, "key": scored["key"]}},
        "classifier": scored["classifier"],
        "key": files.fingerprint(scored["key"], asdict(config.decision), config.write),
    }
    seconds = None
    with storage.lock(config.output):
        tasks = [records.from_json(task) for task in scored["tasks"]]
        if prepare(config.output, about["key"], [record.task for record in tasks], resume):
            print(f"{config.output} is complete already: nothing to do")
        else:
            _copy_quarantine(tasks, config.scored, config.output)
            begun = time.monotonic()
            finished = engine.run(
                options,
                lambda pipeline: graph.build_decide(
                    pipeline,
                    config.scored,
                    len(tasks),
                    sink,
                    config.decision,
                    scored["duplicate_ids"],
                    about,
                ),
                progress.Watch(progress.folder(sink.work), 0, config.stall_minutes),
            )
            seconds = None if resume else time.monotonic() - begun
            if not finished:
                print(f"the job is made; {config.output} is complete once it has a {manifest.NAME}")
                return
    print_summary(config.output, manifest.read_manifest(config.output), seconds)
    print(next_step(config.output))


def as_it_kept_near_duplicates(decision: Decision, scored: Mapping[str, Any]) -> Decision:
    """The decision with the scored run's rule of who stays, unless it has one of its own.

    Raises:
        ValueError: it has one, and the run did not look for near-duplicates.
    """
    names = ("near_duplicates_keep", "near_duplicates_power")
    if any(getattr(decision, name) is not None for name in names):
        if not scored.get("near_duplicates"):
            raise ValueError(
                "--near-duplicates-keep needs a run with --near-duplicates, and this one had none:"
                " leave it out, or run again with --near-duplicates"
            )
        return decision
    return replace(decision, **{name: scored["decision"].get(name) for name in names})


def _copy_quarantine(tasks: Sequence[records.Record], scored: str, output: str) -> None:
    """The records that could not be read belong to this output's accounting too."""
    for record in tasks:
        if record.quarantine_checksum is None:
            continue
        path = records.quarantine_path(scored, record.task.stem)
        if storage.checksum(path) != record.quarantine_checksum:
            raise ValueError(f"{path} has changed since its run: the scored folder is damaged")
        storage.write_bytes(
            records.quarantine_path(output, record.task.stem), storage.read_bytes(path)
        )
