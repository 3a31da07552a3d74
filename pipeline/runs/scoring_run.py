"""A scoring run: plan the tasks, run the graph, report. See :mod:`pipeline.run`."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.beam import engine, graph, staging
from pipeline.config import PipelineConfig, field_maps, load
from pipeline.core import joined, tokens
from pipeline.core.job import Job, Sink
from pipeline.core.plan import plan_tasks
from pipeline.output import records, run_notes, schema
from pipeline.output.records import Task
from pipeline.page.render import next_step
from pipeline.readers import ReadOptions
from pipeline.runs import input_fields, joined_tables
from pipeline.runs.execution import execute
from pipeline.runs.input_fields import FieldSetting
from pipeline.settings import classifier_settings, flags
from pipeline.settings.group_settings import grouped
from pipeline.settings.settings_file import as_json
from pipeline.steps import build_steps, input_files, own_modules
from quality_classifier.scoring import is_own
from winnow import own_code, version
from winnow.commands import console, exits, startup
from winnow.filesystem import files, storage
from winnow.object_stores import object_store


def main(arguments: Sequence[str]) -> None:
    """Plan, run and report; see ``--help``."""
    with exits.usage():
        config, resume, beam_flags = load(arguments)
        options = engine.options(beam_flags, config.stall_minutes)
        wanted = input_fields.field_settings(config)
    object_store.configure(options)
    own = own_code_of(config)
    if not own:
        startup.no_pandas_nor_scipy()
    tasks = planned(config, wanted)
    engine.choose_processes(options, beam_flags, [task.input for task in tasks])
    languages = input_fields.language_notes(config, tasks, field_maps(config))
    job, about = describe(config, tasks, resume)
    patterns = (pattern for patterns in config.source.values() for pattern in patterns)
    given = [config.output, *input_files(config.steps), *filter(None, [config.tokenizer])]
    staging.check_paths(options, [*patterns, *given])

    def begin() -> Callable[[beam.Pipeline], None]:
        ready, copies = reachable(options, job)
        ready = joined_tables.with_tables(ready, config)
        joins = {"joins": joined.about(ready.sink.joins)} if config.join else {}
        staging.upload(copies)
        records.save_tasks(ready.sink.work, tasks)
        return lambda pipeline: graph.build(
            pipeline, len(tasks), ready, config.decision, about | joins
        )

    written = execute(options, config, about["key"], tasks, resume, begin, own)
    if written is None:
        return
    for line in run_notes.joins(written):
        print(f"join:   {line}")
    lacking = input_fields.check_after(wanted, written)
    notes = [*run_notes.empty_sources(written), *lacking, *languages]
    for note in [*notes, *run_notes.trained_on(written), *run_notes.unchecked(written)]:
        print(f"warning: {note}", file=sys.stderr)
    run_notes.check_read(config.output, written)
    print(next_step(config.output))


def planned(config: PipelineConfig, wanted: Sequence[FieldSetting]) -> list[Task]:
    """The tasks of a run; ValueError if no input has a field of ``wanted``."""
    maps, reading = field_maps(config), ReadOptions.of(config)
    with console.doing("looking at the inputs"):
        tasks = plan_tasks(config.source, config.filter, config.split_bytes, maps, reading)
        input_fields.check_before(wanted, tasks, maps, reading)
    return tasks


def describe(
    config: PipelineConfig,
    tasks: Sequence[Task],
    resume: bool,
    say: Callable[[str], None] = console.say,
) -> tuple[Job, dict[str, Any]]:
    """The job that all tasks share, and the run's entry in the manifest; ``say`` receives notes."""
    several, combined, classifier = classifier_settings.described(config)
    grades = tuple(schema.grade_columns(classifier))
    for name in sorted(set(grades) & set(config.metadata)):
        raise ValueError(
            f"--metadata {name}: the classifier writes that column, leave the field out"
        )
    # Fail now, not in a worker.
    steps = build_steps(config.steps)
    for step in steps:
        for note in step.notes:
            say(note)
    counts = sorted({name for step in steps for name in step.counts})
    if config.tokenizer:
        tokens.load(config.tokenizer)
        counts.append(schema.TOKENS)
    if taken := sorted(set(counts) & set(config.metadata)):
        raise ValueError(f"--metadata {taken} would clash with what the steps count")
    read = {path: path for path in input_files(config.steps)} | own_modules(config.steps)
    read |= {name: own_code.source(name) for name in config.reader}
    read |= {config.tokenizer: config.tokenizer} if config.tokenizer else {}
    read |= {path: path for paths in joined_tables.files_of(config, say).values() for path in paths}
    sink = Sink(
        config.output, tuple(config.metadata), config.write, config.shard_bytes,
        config.compression, config.near_duplicates, grouped(config.decision).has_copies, grades,
        tuple(sorted(counts)), combined, config.format,
    )  # fmt: skip
    job = Job(
        sink=sink,
        classifier=config.classifier if isinstance(config.classifier, str) else "",
        classifier_fingerprint=classifier["fingerprint"],
        label=config.label if isinstance(config.label, str) else None,
        several=several,
        seed=config.seed,
        steps=config.steps,
        step_files={name: storage.checksum(path) for name, path in read.items()},
        fields=field_maps(config),
        reading=ReadOptions.of(config),
        resume=resume,
        near_duplicates=config.near_settings,
        tokenizer=config.tokenizer or "",
    )
    settings = as_json(asdict(config) | {"decision": config.decision.as_settings()})
    unused = {"output", "stall_minutes"}  # no output depends on them
    unused |= {name for name in ("join", "reader", "tokenizer") if not settings[name]}
    if combined:
        settings["combine"] = combined.rule
    else:
        unused |= {"combine", "calibration"}
    if config.format == flags.DEFAULT_FORMAT:
        unused.add("format")
    if not config.near_duplicates:
        unused |= {name for name in settings if name.startswith("near_duplicates")}
    settings = {name: value for name, value in settings.items() if name not in unused}
    about = {
        "code": version.code_version(),
        "config": settings,
        "classifier": classifier,
        "key": files.fingerprint(
            settings, classifier["fingerprint"], job.step_files, [asdict(task) for task in tasks]
        ),
    }
    try:  # fail now, not when the manifest is written
        json.dumps(about, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings, or the classifier's card, are not JSON: {error}") from error
    return job, about


def own_code_of(config: PipelineConfig) -> list[str]:
    """The dotted paths of user-defined steps, readers and classifiers."""
    given = config.classifier
    classifiers = [given] if isinstance(given, str) else given.values()
    return [*own_modules(config.steps), *config.reader, *filter(is_own, classifiers)]


def reachable(options: PipelineOptions, job: Job) -> tuple[Job, list[tuple[Path, str]]]:
    """The job with classifiers' paths that workers can reach, and the files to upload."""
    if job.classifier:
        place, copies = staging.reachable_classifier(
            options, job.classifier, job.classifier_fingerprint
        )
        return replace(job, classifier=place), copies
    found = [staging.reachable_classifier(options, c.path, c.fingerprint) for c in job.several]
    moved = zip(job.several, found, strict=True)
    several = tuple(replace(one, path=place) for one, (place, _) in moved)
    return replace(job, several=several), [copy for _, copies in found for copy in copies]
