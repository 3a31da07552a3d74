"""Preconditions for a claim of equivalence, besides its interval.

Untrained models, or arms with the same text, show no difference either, so "no difference" and
"differs slightly" are claimed only if none of these doubts applies.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ablations.study_files.results import Run, Study

MIN_SEEDS = 3
"""With two, t has one degree of freedom."""

LEARNED = 0.9
"""A trained model must be below this share of a unigram model's bits per byte."""

DIFFERING = 0.05
"""Arms that differ in text alone must differ in at least this share of the tokens read."""


def doubts(study: Study, treatment: Mapping[int, Run], baseline: Mapping[int, Run]) -> list[str]:
    """Reasons not to claim that two arms (runs by seed) are equivalent, a clause each."""
    declared = study.declared
    doubts = []
    if (seeds := len(treatment.keys() & baseline.keys())) < MIN_SEEDS:
        doubts.append(f"there are {seeds} seeds of both, and {MIN_SEEDS} are needed")
    doubts += unlearned(study, [*treatment.values(), *baseline.values()])
    if not declared.unigram:
        doubts.append("the unigram baseline is unknown (study.yaml has no unigram)")
    if declared.differing is not None and declared.differing < DIFFERING:
        doubts.append(f"only {declared.differing:.1%} of the text read differs between the arms")
    return doubts


def unlearned(study: Study, runs: Sequence[Run]) -> list[str]:
    """A clause if models hardly beat a unigram model on the primary endpoint's held-out text (for
    a task endpoint, on all of it).
    """
    kind, _, name = study.declared.primary.endpoint.partition("/")
    unigram = study.declared.unigram
    sources = study.declared.heldout.get(name, [name]) if kind == "heldout" else list(unigram)
    if not unigram or not sources or any(source not in unigram for source in sources):
        return []
    ours = np.mean([run.result.heldout[source] for run in runs for source in sources])
    share = float(ours / np.mean([unigram[source] for source in sources]))
    if share < LEARNED:
        return []
    return [
        f"the models have learned little: {share:.0%} of the bits per byte of a unigram model,"
        f" where less than {LEARNED:.0%} is wanted (train.tokens)"
    ]
