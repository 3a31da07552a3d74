"""Applies the steps of a run to one task, and counts what each changed."""

import functools
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps import AnyStep, apply, build_steps
from pipeline.steps.by_language import ByLanguage
from pipeline.steps.host_lines import HostLines
from pipeline.steps.words.folded_lines import Keys
from winnow.filesystem import tables


class TaskSteps:
    """The steps for the documents of one task.

    Attributes:
        changed: for each step that may change texts, the changed ``documents`` and their
            ``removed_bytes`` (negative: added).
        unchecked: for each step with settings by language, the documents that it passed for want of
            settings, by language.
    """

    def __init__(self, settings: Mapping[str, Any], repeated: Keys | None) -> None:
        """``repeated`` are the keys of the task's repeated lines, if a step needs them."""
        steps = _steps(json.dumps(settings))
        self._steps = {
            name: step.knowing(repeated)
            if isinstance(step, HostLines) and repeated is not None
            else step
            for name, step in zip(settings, steps, strict=True)
        }
        self.changed = {
            name: {"documents": 0, "removed_bytes": 0}
            for name, step in self._steps.items()
            if step.counts
        }
        self.unchecked: dict[str, dict[str, int]] = {}

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A scored batch after the steps; ``drop_reason`` names the first that dropped."""
        for name, step in self._steps.items():
            before = batch
            if isinstance(step, ByLanguage):
                for language, count in step.without(batch).items():
                    found = self.unchecked.setdefault(name, {})
                    found[language] = found.get(language, 0) + count
            batch, codes = apply(name, step, batch)
            if codes.any():
                reasons = pa.array([None, *step.reasons], pa.string()).take(pa.array(codes))
                first = pc.coalesce(batch["drop_reason"], reasons)
                batch = tables.replaced(batch, drop_reason=first)
            if step.counts and batch is not before:
                changed = pc.not_equal(before["text"], batch["text"])
                removed = pc.subtract(before["bytes"], batch["bytes"])
                self.changed[name]["documents"] += changed.true_count
                self.changed[name]["removed_bytes"] += pc.sum(removed).as_py() or 0
        return batch


@functools.lru_cache(maxsize=2)
def _steps(config: str) -> list[AnyStep]:
    """The steps of a process, shared by its threads."""
    return build_steps(json.loads(config))
