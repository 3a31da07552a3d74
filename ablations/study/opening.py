"""What comes before the first job of a study: its arms, its power, its declaration."""

from collections.abc import Sequence
from typing import Any

from ablations import contamination, near_duplicates, results
from ablations.reading import read_declaration, read_study
from ablations.results import Declaration
from ablations.stats import power
from ablations.stats.pairing import contrast
from ablations.study import arms, held_out_groups, study_tasks
from ablations.study.config import AblationConfig
from ablations.study.execute import check_identity
from ablations.study.held_out_groups import heldout_groups
from ablations.study.jobs import Job, declaration, identity, stream_of, training_config
from model.data.corpus import Corpus, open_corpus
from winnow import storage


def open_study(jobs: Sequence[Job]) -> Declaration:
    """Check a study as a whole, write its arms and ``study.yaml``.

    Raises:
        ValueError: something is missing or does not go together, or the study was declared
            otherwise when it began, or it is underpowered and nobody said that it may be.
    """
    config = jobs[0].config
    if not config.corpus:
        raise ValueError("give corpus=DIR, a folder of model/prepare.py")
    corpus = open_corpus(config.corpus)
    declared = declaration(jobs, config.heldout or heldout_groups(corpus))
    check_declared_before(config.output, declared)
    if refusal := underpowered(config, declared):
        raise ValueError(refusal)
    check_endpoint(declared, corpus)
    mixture = arms.pool_shares(corpus)
    near = near_duplicates.of_study(corpus, config.output)  # once, before jobs run side by side
    checked: list[Any] = []
    for job in jobs:
        arms.ensure(corpus, job.config.data)
        training = training_config(job, mixture)
        stream_of(training, corpus)
        check_identity(job, identity(job, training, corpus))
        held = [training["data"]["sequence_length"], training["evaluate"]]
        if held not in checked:
            held_out_groups.check(corpus, training, near)
            checked.append(held)
    if sets := study_tasks.gather_all(config.tasks):
        main = [job.config for job in jobs if job.config.variant == declared.main]
        of_corpus = {config.arm: config.data.arm for config in main}
        contamination.of_study(corpus, of_corpus, sets, config.output)
    results.write_declaration(config.output, declared)
    return declared


def check_endpoint(declared: Declaration, corpus: Corpus) -> None:
    """Whether the held-out text of the primary endpoint is there.

    Raises:
        ValueError: it is not.
    """
    kind, _, name = declared.primary.endpoint.partition("/")
    groups = heldout_groups(corpus)
    sources = [source for of_group in groups.values() for source in of_group]
    if kind == "heldout" and name not in [*declared.heldout, *sources]:
        known = ", ".join([*declared.heldout, *sources]) or "nothing"
        raise ValueError(
            f"primary.endpoint={declared.primary.endpoint} is not among what the corpus"
            f" {corpus.folder} holds out: {known}"
        )


def check_declared_before(output: str, declared: Declaration) -> None:
    """A study may grow by arms, variants and seeds; what it is about stays as it was declared.

    Raises:
        ValueError: the folder holds a study of something else.
    """
    if not storage.exists(storage.join(output, results.DECLARATION)):
        return
    old = read_declaration(output)
    for name in ("primary", "main", "secondary", "heldout", "shots"):
        before, now = getattr(old, name), getattr(declared, name)
        if before != now:
            raise ValueError(
                f"{output} was declared with {name} {before}, not {now}: what a study is about"
                " can't change once it has begun; choose another output=DIR"
            )
    for name in ("arms", "variants", "seeds"):
        if lost := [x for x in getattr(old, name) if x not in getattr(declared, name)]:
            raise ValueError(
                f"{output} was declared with {name} {lost} too: name them again (what is complete"
                " is not run again), or choose another output=DIR"
            )


def expected_noise(config: AblationConfig) -> tuple[float, float, str]:
    """Seed SD and item error of the primary contrast, and where they are from.

    Raises:
        ValueError: the pilot says nothing about the contrast.
    """
    noise = config.noise
    if noise.pilot is None:
        return noise.seed_sd, noise.item_error, "as stated"
    pilot, primary = read_study(noise.pilot), config.primary
    treatment, baseline = (pilot.seeds(arm) for arm in (primary.treatment, primary.baseline))
    found = contrast(pilot, treatment, baseline, primary.endpoint)
    if found is None or found.estimate.seed_sd is None:
        raise ValueError(
            f"the pilot {noise.pilot} has no two seeds of both {primary.treatment} and"
            f" {primary.baseline}: give noise.seed_sd and noise.item_error instead"
        )
    return found.estimate.seed_sd, found.estimate.item_error, f"measured in {noise.pilot}"


def detectable(config: AblationConfig, declared: Declaration) -> float:
    """The difference that the study finds with its declared power; infinite with one seed."""
    if len(declared.seeds) < 2:
        return float("inf")
    seed_sd, item_error, _ = expected_noise(config)
    primary = declared.primary
    return power.minimum_detectable_effect(
        seed_sd, len(declared.seeds), item_error, primary.alpha, primary.power
    )


def underpowered(config: AblationConfig, declared: Declaration) -> str | None:
    """Why the study may not run, if it may not."""
    found, wanted = detectable(config, declared), declared.primary.smallest_difference
    if found <= wanted or config.allow_underpowered:
        return None
    seed_sd, item_error, source = expected_noise(config)
    needed = power.seeds_needed(
        wanted, seed_sd, item_error, declared.primary.alpha, declared.primary.power
    )
    advice = f"{needed} seeds would do" if needed else "more held-out documents are needed"
    return (
        f"underpowered: {len(declared.seeds)} seeds find a difference of {found:.4g}, and the"
        f" smallest of interest is {wanted:g} (seed SD {seed_sd:g}, item error {item_error:g},"
        f" {source}): {advice}; or set primary.smallest_difference, or allow_underpowered=true"
    )
