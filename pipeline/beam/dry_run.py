"""Builds a Dataflow job with Beam's own code, without submitting it."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    TestOptions,
)

from pipeline.beam import staging

MOST_JOB_BYTES = 10 << 20
"""Dataflow's limit on a job's description (cloud.google.com/dataflow/quotas)."""


@dataclass
class Planned:
    """A job that was not submitted, as JSON values.

    ``staged`` maps the targets of its uploads, the graph included, to their sizes in bytes.
    """

    job: dict[str, Any] = field(default_factory=dict)
    staged: dict[str, int] = field(default_factory=dict)
    graph_bytes: int = 0

    @property
    def pool(self) -> dict[str, Any]:
        """The job's worker pool."""
        (found,) = self.job["environment"]["workerPools"]
        return dict(found)

    def check_size(self) -> None:
        """Raise ValueError if the graph exceeds Dataflow's limit."""
        if self.graph_bytes > MOST_JOB_BYTES:
            raise ValueError(
                f"Dataflow takes a job of {MOST_JOB_BYTES:,} bytes; this one has"
                f" {self.graph_bytes:,}: name long lists of settings in files"
            )


def plan(
    options: PipelineOptions, build: Callable[[beam.Pipeline], None], own: Sequence[str] = ()
) -> Planned:
    """Make the job of the pipeline that ``build`` fills, with all of Beam's checks.

    Uploads are recorded, not made. ``own`` are dotted paths of the user's code that workers need.

    Raises:
        ValueError: Beam refuses the options, the graph or this version of Python.
        RuntimeError: our wheel cannot be built.
    """
    from apache_beam.runners.dataflow.internal import apiclient

    found = Planned()

    class Offline(apiclient.DataflowApplicationClient):
        def stage_file_with_retry(
            self, folder: str, name: str, content: Any, *_: Any, **__: Any
        ) -> None:
            size = os.path.getsize(content) if isinstance(content, str) else len(content.read())
            found.staged[f"{folder}/{name}"] = size

    cloud = options.view_as(GoogleCloudOptions)
    if not (cloud.temp_location or cloud.staging_location):
        raise ValueError("--runner DataflowRunner needs --temp_location gs://…")
    tests = options.view_as(TestOptions)
    tests.dry_run = True
    with staging.packages(options, own):
        pipeline = beam.Pipeline(options=options)
        build(pipeline)
        job = pipeline.run().job
        job.options.view_as(TestOptions).dry_run = False
        cloud = job.options.view_as(GoogleCloudOptions)
        before, cloud.no_auth = cloud.no_auth, True  # the client asks for no credentials
        client = Offline(job.options, job.root_staging_location)
        cloud.no_auth = before
        client.create_job_description(job)
    found.job = json.loads(job.json())
    found.graph_bytes = len(job.proto_pipeline.SerializeToString())
    if place := options.view_as(DebugOptions).dataflow_job_file:
        with open(place, "w", encoding="utf-8") as file:
            json.dump(found.job, file, indent=1)
    return found
