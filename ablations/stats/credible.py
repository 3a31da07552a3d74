"""What a claim of equivalence rests on, beside its interval.

A study of models that have learned nothing, or of arms that hold the same text, finds no difference
either. So "no difference" and "differs slightly" are said only where nothing here speaks against.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ablations.results import Run, Study

SEEDS = 3
"""At least: two know their own spread too badly (t with one degree of freedom)."""

LEARNED = 0.9
"""The part of a unigram model's bits per byte that a trained model's must be below."""

DIFFERING = 0.05
"""The part of the tokens read that at least must differ between arms that differ in text alone."""


def doubts(study: Study, treatment: Mapping[int, Run], baseline: Mapping[int, Run]) -> list[str]:
    """Why an absence of differences would say little, each a clause; none where it says something.

    Args:
        study: of the runs.
        treatment: the runs of one arm, by seed.
        baseline: those of the other.
    """
    declared = study.declared
    said = []
    if (seeds := len(treatment.keys() & baseline.keys())) < SEEDS:
        said.append(f"there are {seeds} seeds of both, and it takes {SEEDS}")
    said += unlearned(study, [*treatment.values(), *baseline.values()])
    if not declared.unigram:
        said.append("it is not known what a unigram model reaches (study.yaml has no unigram)")
    if declared.differing is not None and declared.differing < DIFFERING:
        said.append(f"only {declared.differing:.1%} of the text read differs between the arms")
    return said


def unlearned(study: Study, runs: Sequence[Run]) -> list[str]:
    """A clause where models are hardly better than a unigram model on the primary endpoint's text.

    For an endpoint that is no held-out text, on all of it.
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
