"""A scoring run: plan the tasks, run the graph, report. See :mod:`pipeline.run`."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import classifier_settings, field_settings, flags, joined_tables, step_settings
from pipeline.beam import engine, graph, job_server, progress, staging, worker
from pipeline.config import PipelineConfig, field_maps, load
from pipeline.core import joined, tokens, trained_on
from pipeline.core.plan import plan_tasks
from pipeline.core.sink import Sink
from pipeline.core.task import Job
from pipeline.core.unreadable_sources import check_read, empty_sources
from pipeline.group_settings import grouped
from pipeline.output import manifest, output_folder, records, schema
from pipeline.output.records import Task
from pipeline.page.render import next_step, print_summary
from pipeline.readers import ReadOptions
from pipeline.settings_file import as_json
from pipeline.steps import build_steps, input_files, own_modules
from quality_classifier.scoring import is_own
from winnow import endings, files, own_code, run_log, starting, storage, telling, version


def main(arguments: Sequence[str]) -> None:
    """Plan, run and report; see ``--help``."""
    with endings.usage():
        config, resume, beam_flags = load(arguments)
        options = engine.options(beam_flags, config.stall_minutes)
        wanted = field_settings.field_settings(config)
        maps = field_maps(config)
    storage.configure(options)
    own = own_code_of(config)
    if not own:
        starting.no_pandas_nor_scipy()
    with telling.doing("looking at the inputs"):
        reading = ReadOptions.of(config)
        tasks = plan_tasks(config.source, config.filter, config.split_bytes, maps, reading)
        field_settings.check_before(wanted, tasks, maps, reading)
        languages = field_settings.language_notes(config, tasks, maps)
    job, about = describe(config, tasks, resume)
    patterns = (pattern for patterns in config.source.values() for pattern in patterns)
    given = [config.output, *input_files(config.steps), *filter(None, [config.tokenizer])]
    staging.check_paths(options, [*patterns, *given])
    seconds = None
    with storage.lock(config.output):
        if prepare(config.output, about["key"], tasks, resume):
            print(f"{config.output} is complete already: nothing to do")
        else:
            run_log.write_to(config.output)
            job, copies = reachable(options, job)
            job = joined_tables.with_tables(job, config)
            about |= {"joins": joined.about(job.sink.joins)} if config.join else {}
            staging.upload(copies)
            records.save_tasks(job.sink.work, tasks)
            size = sum(task.input.size for task in tasks)
            begun = time.monotonic()
            finished = engine.run(
                options,
                lambda pipeline: graph.build(pipeline, len(tasks), job, config.decision, about),
                progress.Watch(progress.folder(job.sink.work), size, config.stall_minutes),
                own,
                storage.join(config.output, output_folder.JOB),
            )
            seconds = None if resume else time.monotonic() - begun
            if not finished:
                print(f"the job is made; {config.output} is complete once it has a {manifest.NAME}")
                return
    written = manifest.read_manifest(config.output)
    print_summary(config.output, written, seconds, engine.name(options))
    for line in joined.lines(written):
        print(f"join:   {line}")
    lacking = field_settings.check_after(wanted, written)
    learned, unchecked = trained_on.notes(written), step_settings.notes(written)
    for note in [*empty_sources(written), *lacking, *languages, *learned, *unchecked]:
        print(f"warning: {note}", file=sys.stderr)
    check_read(config.output, written)
    print(next_step(config.output))


def describe(
    config: PipelineConfig,
    tasks: Sequence[Task],
    resume: bool,
    say: Callable[[str], None] = telling.say,
) -> tuple[Job, dict[str, Any]]:
    """What tasks share, and what the manifest will say of the run; ``say`` receives notes."""
    several, combined, classifier = classifier_settings.described(config)
    grades = tuple(schema.grade_columns(classifier))
    for name in sorted(set(grades) & set(config.metadata)):
        raise ValueError(f"--metadata {name}: the column is the classifier's, leave the field out")
    # What is wrong with the steps is said now, not by a worker.
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
    job = Job(
        sink=Sink(
            config.output,
            tuple(config.metadata),
            config.write,
            config.shard_bytes,
            config.compression,
            config.near_duplicates,
            grouped(config.decision).has_copies,
            grades,
            tuple(sorted(counts)),
            combined,
            config.format,
        ),
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
    for name in ("output", "stall_minutes"):  # nothing that is written depends on them
        del settings[name]
    if combined:
        settings["combine"] = combined.rule
    else:
        del settings["combine"], settings["calibration"]
    if not config.join:
        del settings["join"]
    for name in ("reader", "tokenizer"):
        if not settings[name]:
            del settings[name]
    if config.format == flags.DEFAULT_FORMAT:
        del settings["format"]
    if not config.near_duplicates:
        settings = {n: v for n, v in settings.items() if not n.startswith("near_duplicates")}
    about = {
        "code": version.code_version(),
        "config": settings,
        "classifier": classifier,
        "key": files.fingerprint(
            settings, classifier["fingerprint"], job.step_files, [asdict(task) for task in tasks]
        ),
    }
    try:  # what the manifest can't hold is said now, not when all is done
        json.dumps(about, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the settings, or the classifier's card, are not JSON: {error}"
        ) from error
    return job, about


def own_code_of(config: PipelineConfig) -> list[str]:
    """The dotted paths of the user's own steps, readers and classifiers."""
    given = config.classifier
    classifiers = [given] if isinstance(given, str) else given.values()
    return [*own_modules(config.steps), *config.reader, *filter(is_own, classifiers)]


def reachable(options: PipelineOptions, job: Job) -> tuple[Job, list[tuple[Path, str]]]:
    """The job with the paths by which its workers reach the classifiers, and files to upload."""
    if job.classifier:
        place, copies = staging.reachable_classifier(
            options, job.classifier, job.classifier_fingerprint
        )
        return replace(job, classifier=place), copies
    found = [staging.reachable_classifier(options, c.path, c.fingerprint) for c in job.several]
    moved = zip(job.several, found, strict=True)
    several = tuple(replace(one, path=place) for one, (place, _) in moved)
    return replace(job, several=several), [copy for _, copies in found for copy in copies]


def prepare(output: str, key: str, tasks: Iterable[Task], resume: bool) -> bool:
    """Make the output folder ready; True if it already holds this very run, complete.

    Raises:
        ValueError: it holds anything but an unfinished run, or such a one and ``resume`` is false,
            or workers of a run that was killed are still at it.
    """
    begun = output_folder.begun(output)
    finished = output_folder.finished(output)
    signs = progress.folder(storage.join(output, records.WORK))
    if begun is not None or finished is not None:
        if signs is not None:
            worker.wait_for_others(signs)
        if resume:
            job_server.end_earlier(storage.join(output, output_folder.JOB))
    if finished is not None:
        if resume and finished["key"] == key:
            # It may have been killed while it did that.
            output_folder.remove_work(output, output_folder.parts_of(finished["tasks"]))
            return True
        raise ValueError(f"{output} holds a finished run already: choose another --output")
    if storage.exists(storage.join(output, manifest.NAME)):
        raise ValueError(
            f"{output} holds another program's {manifest.NAME}: choose another --output"
        )
    if begun is None and (stranger := output_folder.stranger(output)) is not None:
        raise ValueError(
            f"{output} is not an unfinished run, and not empty (it holds {stranger}): choose"
            " another --output"
        )
    if begun is not None and not resume:
        raise ValueError(
            f"{output} holds an unfinished run: add --resume to finish it, or choose another"
            " --output"
        )
    parts = frozenset((task.source, task.of) for task in tasks)
    output_folder.begin(output, key, parts | (begun or frozenset()))
    return False
