"""Decides again from stored scores. See :mod:`pipeline.decide`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import apache_beam as beam

from pipeline.beam import engine, graph, staging
from pipeline.config import load_decide
from pipeline.core import joined
from pipeline.core.job import Sink
from pipeline.core.scores import recombined
from pipeline.output import manifest, records, schema
from pipeline.page.render import next_step
from pipeline.runs.execution import execute
from pipeline.settings import flags, group_settings
from pipeline.settings.classifier_settings import combined_again
from pipeline.settings.group_settings import AnyDecision
from pipeline.settings.settings_file import as_json
from winnow import version
from winnow.commands import exits, startup
from winnow.filesystem import files, storage
from winnow.object_stores import object_store


def main(arguments: Sequence[str]) -> None:
    """Decide and report; see ``--help``."""
    with exits.usage():
        config, resume, beam_flags = load_decide(arguments)
        options = engine.options(beam_flags, config.stall_minutes)
    object_store.configure(options)
    startup.no_pandas_nor_scipy()
    staging.check_paths(options, [config.scored, config.output])
    scored = manifest.read_manifest(config.scored)
    if scored["config"]["write"] != "all":
        raise ValueError(
            f"{config.scored} was written with --write kept: only a run that left the dropped"
            " documents in its shards can be decided again"
        )
    config = replace(config, decision=as_it_kept_near_duplicates(config.decision, scored["config"]))
    combined = combined_again(config, scored)
    clusters = scored["config"].get("near_duplicates", False)
    copies = group_settings.grouped(config.decision).has_copies
    grades = tuple(schema.grade_columns(scored["classifier"]))
    counts = tuple(sorted(scored["tasks"][0].get("changed", ())))
    sink = Sink(
        config.output, tuple(scored["config"]["metadata"]), config.write, config.shard_bytes,
        config.compression, clusters, copies, grades, counts, combined, config.format,
        joined.of_manifest(scored.get("joins", {})),
    )  # fmt: skip
    if combined:
        combined.check(sink.joined)
    names = schema.shard_schema(sink.metadata, classifiers=sink.names, joined=sink.joined).names
    group_settings.check(config.decision, names, scored["config"]["filter"])
    decision = as_json(config.decision.as_settings())
    settings = scored["config"]
    classifier = recombined(scored["classifier"], combined) if combined else scored["classifier"]
    differs = [config.write]
    settings.pop("format", None)
    form = {} if config.format == flags.DEFAULT_FORMAT else {"format": config.format}
    differs += form.values()
    if combined and classifier != scored["classifier"]:
        differs.append(classifier["fingerprint"])
        settings |= {"combine": combined.rule, "calibration": config.calibration}
    # Duplicates that the run dropped stay dropped.
    deduplicated = {"deduplicate": settings["decision"]["deduplicate"]}
    settings |= {"decision": decision | deduplicated, "write": config.write}
    settings |= {"compression": config.compression, **form}
    settings |= {"scored": {"path": config.scored, "key": scored["key"]}}
    about = {
        "code": version.code_version(),
        "config": settings,
        "classifier": classifier,
        "key": files.fingerprint(scored["key"], decision, *differs),
    }
    if sink.joins:
        about["joins"] = scored["joins"]
    tasks = [records.from_json(task) for task in scored["tasks"]]

    def begin() -> Callable[[beam.Pipeline], None]:
        _copy_quarantine(tasks, config.scored, config.output)
        known = scored["duplicate_ids"]
        return lambda pipeline: graph.build_decide(
            pipeline, config.scored, len(tasks), sink, config.decision, known, about
        )

    inputs = [record.task for record in tasks]
    written = execute(options, config, about["key"], inputs, resume, begin)
    if written is not None:
        print(next_step(config.output))


def as_it_kept_near_duplicates(decision: AnyDecision, scored: Mapping[str, Any]) -> AnyDecision:
    """The decision, by default with the scored run's choice of near-duplicates.

    Raises:
        ValueError: it has a choice, but the run did not look for near-duplicates.
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
    """Copy bad records, which belong to this output's accounting too."""
    for record in tasks:
        if record.quarantine_checksum is None:
            continue
        path = records.quarantine_path(scored, record.task.stem)
        if storage.checksum(path) != record.quarantine_checksum:
            raise ValueError(f"{path} has changed since its run: the scored folder is damaged")
        storage.write_bytes(
            records.quarantine_path(output, record.task.stem), storage.read_bytes(path)
        )
