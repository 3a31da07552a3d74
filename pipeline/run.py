r"""Raw web text in; scored, sampled Arrow shards, statistics and a page out.

python pipeline/run.py --source web='crawl/*.warc.gz' --source wiki='wiki/*.jsonl.gz' \
        --filter web --classifier classifier/ --rule pareto --alpha 9 --output scored/
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from pipeline import (
    engine,
    manifest,
    progress,
    records,
    shards,
    staging,
    storage,
    transforms,
    worker,
)
from pipeline.config import PipelineConfig, field_maps, load
from pipeline.plan import plan_tasks
from pipeline.process import Job, Sink
from pipeline.records import Task
from pipeline.report import print_table
from pipeline.steps import build_steps, input_files
from quality_classifier.scoring import load_classifier


def main(arguments: Sequence[str]) -> None:
    """Plan, run and report; see ``--help``."""
    config, resume, beam_flags = load(arguments)
    options = engine.options(beam_flags)
    storage.configure(options)
    tasks = plan_tasks(config.source, config.filter, config.split_bytes, field_maps(config))
    job, about = describe(config, tasks, resume)
    patterns = (pattern for patterns in config.source.values() for pattern in patterns)
    staging.check_paths(options, [*patterns, config.output, *job.step_files])
    with storage.lock(config.output):
        if prepare(config.output, about["key"], resume):
            print(f"{config.output} is complete already: nothing to do")
        else:
            place = staging.reachable_classifier(
                options, config.classifier, job.classifier_fingerprint
            )
            job = replace(job, classifier=place)
            records.save_tasks(job.sink.work, tasks)
            size = sum(task.input.size for task in tasks)
            finished = engine.run(
                options,
                lambda pipeline: transforms.build(
                    pipeline, len(tasks), job, config.decision, about
                ),
                progress.Watch(progress.folder(job.sink.work), size, config.stall_minutes),
            )
            if not finished:
                print(f"the job is made; {config.output} is complete once it has a {manifest.NAME}")
                return
    print_table(config.output)


def describe(
    config: PipelineConfig, tasks: Sequence[Task], resume: bool
) -> tuple[Job, dict[str, Any]]:
    """What tasks share, and what the manifest will say of the run."""
    classifier = load_classifier(config.classifier, config.label)
    build_steps(config.steps)  # what is wrong with them is said now, not by a worker
    job = Job(
        sink=Sink(
            config.output,
            tuple(config.metadata),
            config.write,
            config.shard_bytes,
            config.compression,
        ),
        classifier=config.classifier,
        classifier_fingerprint=classifier.fingerprint,
        label=config.label,
        seed=config.seed,
        steps=config.steps,
        step_files={path: shards.checksum(path) for path in input_files(config.steps)},
        fields=field_maps(config),
        html_extractor=config.html_extractor,
        max_document_bytes=config.max_document_bytes,
        resume=resume,
    )
    settings = asdict(config)
    for name in ("output", "stall_minutes"):  # nothing that is written depends on them
        del settings[name]
    about = {
        "code": manifest.code_version(),
        "config": settings,
        "classifier": {
            "path": config.classifier,
            "fingerprint": classifier.fingerprint,
            "card": dict(classifier.card),
        },
        "key": records.fingerprint(
            settings, classifier.fingerprint, job.step_files, [asdict(task) for task in tasks]
        ),
    }
    return job, about


def prepare(output: str, key: str, resume: bool) -> bool:
    """Make the output folder ready; True if it already holds this very run, complete.

    Raises:
        ValueError: it holds another run, or an unfinished one and ``resume`` is false, or workers
            of a run that was killed are still at it.
    """
    work = storage.join(output, records.WORK)
    signs = progress.folder(work)
    if signs is not None:
        worker.wait_for_others(signs)
    if storage.exists(storage.join(output, manifest.NAME)):
        if resume and manifest.read_manifest(output)["key"] == key:
            if storage.scheme(work) is not None or os.path.exists(work):
                storage.remove(work)  # the run was killed while it did that
            return True
        raise ValueError(f"{output} holds a finished run already: choose another --output")
    found = [path for path in storage.listing(output) if not path.endswith("/.lock")]
    begun = storage.listing(work)
    if (found or begun or storage.listing(storage.join(output, "shards"))) and not resume:
        raise ValueError(
            f"{output} is not empty, but has no manifest: add --resume to finish the run that was"
            " cut off there, or choose another --output"
        )
    storage.write_json(storage.join(work, "run.json"), {"key": key})
    storage.remove_temporary(output)
    return False


if __name__ == "__main__":
    engine.exit_clearly(main)
