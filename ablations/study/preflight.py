"""Check and declare a study before its first job: arms, endpoint, power."""

import dataclasses
import functools
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ablations import contamination, near_duplicates
from ablations.contrasts.pairing import contrast
from ablations.near_duplicates import NearDuplicates
from ablations.reading import read_declaration, read_study
from ablations.stats import power
from ablations.study import unigram_baseline
from ablations.study.design import arms, fairness, held_out_groups, study_tasks, swarm
from ablations.study.design.config import AblationConfig
from ablations.study.design.jobs import Job, declaration, identity, stream_of, training_config
from ablations.study.design.suggested_command import suggested_command
from ablations.study.execute import check_identity
from ablations.study_files import results
from ablations.study_files.results import TRUNK, Declaration, config_hash
from ablations.tasks.task_set import TaskSet
from model.data.arms import Arm
from model.data.corpus import Corpus, open_corpus, tally
from model.data.order import FEWEST
from winnow.filesystem import storage

if TYPE_CHECKING:
    from model.data.stream import TokenStream

ALL = "all"
"""The held-out group of all sources, if the primary endpoint names it."""


@dataclass(frozen=True)
class CheckedStudy:
    """A study that passed all checks: its declaration and inputs."""

    corpus: Corpus
    declared: Declaration
    arms: Mapping[str, Arm]
    near: NearDuplicates
    tasks: Sequence[TaskSet]

    @functools.cached_property
    def pool(self) -> dict[str, dict[str, int]]:
        """Documents, targets and bytes of the raw pool, by source."""
        return tally(self.corpus, self.corpus.pool)


def check(jobs: Sequence[Job]) -> CheckedStudy:
    """Check a study, cheap checks first, and write the arms that the corpus lacks.

    Raises:
        ValueError: settings are missing, inconsistent or contradict the declaration, or the study
            is underpowered or unfair and that was not allowed.
    """
    config = jobs[0].config
    if not config.corpus:
        raise ValueError("give corpus=DIR, a folder of model/prepare.py")
    corpus = open_corpus(config.corpus)
    declared = declaration(jobs, groups_of(config, corpus))
    if refusal := underpowered(config, declared):
        raise ValueError(refusal)
    endpoint_is_known = fairness.check(jobs, declared, corpus)
    _check_endpoint(declared, corpus)
    tasks = study_tasks.gather_all(config.tasks)
    _check_answer_length(jobs, tasks.sets)
    arm_of = {j.config.arm: arms.ensure(corpus, j.config.data, j.tokens) for j in jobs}
    pooled = [job.config for job in jobs]
    pooled = [config for config in pooled if config.data.pool_shares and not config.data.mixture]
    sharing = {config.arm: arm_of[config.arm] for config in pooled}
    mixture, mixture_notes = arms.common_shares(corpus, sharing, config.unseen)
    declared = dataclasses.replace(declared, mixture=mixture, harness=tasks.harness)
    mixtures, swarm_notes = swarm.declare(jobs, declared, corpus)
    declared = dataclasses.replace(declared, swarm=mixtures)
    streams = _check_jobs(jobs, declared, corpus)
    main = {arm: stream for (arm, variant), stream in streams.items() if variant == declared.main}
    notes = [*declared.notes, *swarm_notes, *overlap_note(jobs, main, corpus), *mixture_notes]
    differing = _differing(jobs, declared, corpus, main)
    print("looking for near-duplicates of held-out documents in training text …", file=sys.stderr)
    near = near_duplicates.of_study(corpus, config.output)
    if len(limits := {job.config.evaluate.final_bytes for job in jobs}) > 1:
        raise ValueError("evaluate.final_bytes can't be swept: all jobs are compared on one text")
    documents = held_out_groups.documents_of(corpus, limits.pop(), near)
    declared = dataclasses.replace(
        declared,
        heldout=held_out_groups.large_enough(declared.heldout, documents),
        known=endpoint_is_known,
        unigram=unigram_baseline.bits_per_byte(corpus, documents),
        differing=differing,
        repeats_from={arm: main[arm].unique_targets for arm in declared.arms},
        first_seeds=_first_seeds(config.output, declared),
        notes=[*notes, *held_out_groups.notes(documents)],
    )
    _check_endpoint(declared, corpus)
    check_declared_before(config.output, declared)
    return CheckedStudy(corpus, declared, arm_of, near, tasks.sets)


def write(jobs: Sequence[Job], study: CheckedStudy) -> None:
    """Write ``study.yaml`` and the files that all jobs read."""
    config = jobs[0].config
    near_duplicates.save(study.near, study.corpus, config.output)
    if study.tasks:
        main = [job.config for job in jobs if job.config.variant == study.declared.main]
        corpus_arms = {config.arm: config.data.arm for config in main}
        contamination.of_study(study.corpus, corpus_arms, study.tasks, config.output)
    results.write_declaration(config.output, study.declared)


def groups_of(config: AblationConfig, corpus: Corpus) -> dict[str, list[str]]:
    """The held-out sources by group, as configured, else as in the corpus."""
    groups = config.heldout or held_out_groups.heldout_groups(corpus, config.unseen)
    if config.primary.endpoint == f"heldout/{ALL}" and ALL not in groups:
        groups = {ALL: corpus.evaluated_sources, **groups}
    return groups


def _check_jobs(
    jobs: Sequence[Job], declared: Declaration, corpus: Corpus
) -> dict[tuple[str, str], "TokenStream"]:
    """Check the jobs' token streams and folders; one stream per arm and variant."""
    streams: dict[tuple[str, str], TokenStream] = {}
    identities: dict[tuple[str, str], dict[str, Any]] = {}
    for job in jobs:
        if job.key[:2] not in streams:
            training = training_config(job, declared.mixture_of(job.config.arm))
            streams[job.key[:2]] = stream_of(training, corpus)
            trunk_identity = identities.get((TRUNK, job.config.variant)) if job.is_arm else None
            trunk_hash = config_hash(trunk_identity) if trunk_identity else None
            identities[job.key[:2]] = identity(job, training, corpus, trunk_hash, declared.harness)
        check_identity(job, identities[job.key[:2]])
    return streams


def overlap_note(
    jobs: Sequence[Job], streams: Mapping[str, "TokenStream"], corpus: Corpus
) -> list[str]:
    """A note on the share of each arm's tokens that its trunk read; none without a trunk."""
    if TRUNK not in streams:
        return []
    steps = {job.config.arm: job.config.steps for job in jobs}
    read = {arm: stream.documents(steps[arm]) for arm, stream in streams.items()}
    by_trunk, lengths = read.pop(TRUNK), corpus.lengths
    parts = []
    for arm, documents in read.items():
        share = lengths[np.intersect1d(documents, by_trunk)].sum() / lengths[documents].sum()
        parts.append(f"{share:.0%} of {arm}")
    shares = " and ".join(parts)
    return [f"The trunk has already read some of the arms' text: {shares}, by tokens."]


def _differing(
    jobs: Sequence[Job], declared: Declaration, corpus: Corpus, streams: Mapping[str, "TokenStream"]
) -> float | None:
    """:attr:`Declaration.differing`; a ValueError if both arms read the same text."""
    primary = declared.primary
    of_main = {job.config.arm: job for job in jobs if job.config.variant == declared.main}
    pair = [of_main[arm] for arm in (primary.treatment, primary.baseline)]
    training = [training_config(job, declared.mixture_of(job.config.arm)) for job in pair]
    identities = [identity(job, config, corpus) for job, config in zip(pair, training, strict=True)]
    texts = [_pop_text(each) for each in identities]
    if identities[0] != identities[1]:
        return None
    if texts[0] == texts[1]:
        raise ValueError(
            f"arms {primary.treatment!r} and {primary.baseline!r} hold the same documents of"
            f" {corpus.folder}, so there is nothing to compare: choose another"
            " rule (data=pareto data.alpha=9), or filter a source and keep dropped documents too"
            " (winnow run --filter SOURCE --write all)"
        )
    read = [streams[job.config.arm].texts(job.config.steps) for job in pair]
    parts = (*read, np.intersect1d(read[0], read[1]))
    tokens = [int(corpus.lengths[part % len(corpus)].sum()) for part in parts]
    return 1 - tokens[2] / max(tokens[:2])


def _pop_text(identity: dict[str, Any]) -> dict[str, Any]:
    """Remove and return the entries of an identity that define the text read."""
    del identity["data.arm"]
    text = [n for n in identity if n == "arm_fingerprint" or n.startswith("data.mixture")]
    return {name: identity.pop(name) for name in text}


def _check_answer_length(jobs: Sequence[Job], tasks: Sequence[TaskSet]) -> None:
    """A ValueError if a task allows answers as long as the model's sequences."""
    length = min(job.config.data.sequence_length for job in jobs)
    for each in tasks:
        if each.new_tokens >= length:
            raise ValueError(
                f"{each.name} lets a model write up to {each.new_tokens} tokens, but sequences have"
                f" {length} (data.sequence_length): leave it out, or copy its file and set"
                " generation_kwargs: {max_gen_toks: …}"
            )


def _check_endpoint(declared: Declaration, corpus: Corpus) -> None:
    """A ValueError if the primary endpoint has no held-out text."""
    kind, _, name = declared.primary.endpoint.partition("/")
    if kind != "heldout":
        return
    sources = [source for group in declared.heldout.values() for source in group]
    known = [*declared.heldout, *(source for source in sources if source not in declared.heldout)]
    if name in known:
        return
    if not known:
        raise ValueError(
            f"the corpus {corpus.folder} holds out too little to evaluate on, with held_out="
            f"{corpus.manifest['held_out']:g}: prepare one with a larger share (winnow prepare"
            " scored=… output=… held_out=0.1)"
        )
    raise ValueError(
        f"{corpus.folder} has no held-out text for primary.endpoint=heldout/{name}, or fewer than"
        f" {FEWEST} documents of it; it has {', '.join(known)}. Hold out more (winnow"
        " prepare … held_out=0.1), or choose another endpoint:\n  "
        + suggested_command(f"primary.endpoint=heldout/{known[0]}")
    )


def _first_seeds(output: str, declared: Declaration) -> int | None:
    """:attr:`Declaration.first_seeds`, set if a study is extended after a comparison."""
    if not storage.exists(storage.join(output, results.DECLARATION)):
        return None
    old = read_declaration(output)
    seen = storage.exists(storage.join(output, "comparison", "comparison.json"))
    if old.first_seeds is None and seen and len(declared.seeds) > len(old.seeds):
        return len(old.seeds)
    return old.first_seeds


def check_declared_before(output: str, declared: Declaration) -> None:
    """A ValueError unless a study only gains arms, variants or seeds."""
    if not storage.exists(storage.join(output, results.DECLARATION)):
        return
    old = read_declaration(output)
    for name in ("primary", "compare", "main", "secondary", "heldout", "shots"):
        if (before := getattr(old, name)) != (now := getattr(declared, name)):
            raise ValueError(
                f"{output} was declared with {name} {before}, not {now}: a study's"
                " question can't change once it has started; choose another output=DIR"
            )
    for name in ("arms", "variants", "seeds"):
        if lost := [x for x in getattr(old, name) if x not in getattr(declared, name)]:
            raise ValueError(
                f"{output} was declared with {name} {lost} too: include them (complete jobs are not"
                " run again), or choose another output=DIR"
            )


def expected_noise(config: AblationConfig) -> tuple[float, float, str]:
    """Seed SD, item error and their origin; a ValueError if the pilot lacks the contrast."""
    noise = config.noise
    if noise.pilot is None:
        return noise.seed_sd, noise.item_error, "as stated"
    pilot, primary = read_study(noise.pilot), config.primary
    treatment, baseline = (pilot.seeds(arm) for arm in (primary.treatment, primary.baseline))
    measured = contrast(pilot, treatment, baseline, primary.endpoint)
    if measured is None or measured.estimate.seed_sd is None:
        raise ValueError(
            f"the pilot {noise.pilot} lacks two seeds of both {primary.treatment} and"
            f" {primary.baseline}: give noise.seed_sd and noise.item_error instead"
        )
    return measured.estimate.seed_sd, measured.estimate.item_error, f"measured in {noise.pilot}"


def detectable(config: AblationConfig, declared: Declaration) -> float:
    """The minimum detectable effect at the declared power; infinite with one seed."""
    if len(declared.seeds) < 2:
        return float("inf")
    seed_sd, item_error, _ = expected_noise(config)
    seeds, primary = len(declared.seeds), declared.primary
    rates = primary.alpha, primary.power
    return power.minimum_detectable_effect(seed_sd, seeds, item_error, *rates)


def underpowered(config: AblationConfig, declared: Declaration) -> str | None:
    """Why the study is refused as underpowered, with a command that would run; else None."""
    effect, wanted = detectable(config, declared), declared.primary.smallest_difference
    if effect <= wanted or config.allow_underpowered:
        return None
    seed_sd, item_error, source = expected_noise(config)
    rates = declared.primary.alpha, declared.primary.power
    needed = power.seeds_needed(wanted, seed_sd, item_error, *rates)
    lines = [
        f"underpowered: {len(declared.seeds)} seeds detect a difference of {effect:.4g}, and the"
        f" smallest of interest is {wanted:g} (seed SD {seed_sd:g}, item error {item_error:g},"
        f" {source})"
    ]
    if needed:
        unused = (n for n in itertools.count(1) if n not in declared.seeds)
        seeds = [*declared.seeds, *itertools.islice(unused, needed - len(declared.seeds))]
        listed = ",".join(map(str, seeds))
        lines += [f"{needed} seeds are enough:", "  " + suggested_command(f"seed={listed}")]
    else:
        lines.append("no number of seeds is enough: hold out more documents")
    lines += ["To run it anyway:", "  " + suggested_command("allow_underpowered=true")]
    return "\n".join(lines)
