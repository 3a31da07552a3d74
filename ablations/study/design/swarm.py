"""The mixtures of ``experiment=mixture``, and of the study that confirms its proposal.

Components are the sources of the arms; a filtered one is split into ``swarm.buckets`` parts of
equal tokens by quality score. Each arm is a mixture: 0 the natural one, 1 the uniform one, others
drawn around the natural one (:mod:`ablations.stats.mixtures`). As in olmix, weights are bounded so
that a run of ``swarm.tokens`` reads no component more than ``swarm.repeats`` times.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from ablations.analyses import mixture_proposal
from ablations.reading import read_declaration, read_study
from ablations.stats import mixtures
from ablations.study.design.config import AblationConfig
from ablations.study.design.jobs import Job
from ablations.study_files.results import DECLARATION, Declaration, FloatArray
from ablations.study_files.swarms import Swarm
from model.data import components
from model.data.corpus import Corpus
from winnow.filesystem import storage

NATURAL, UNIFORM, PROPOSED = "0", "1", "proposed"
"""Members that are not drawn, and the proposed one."""

DIGITS = 4
"""Decimals of a weight; more would not change the interleaving of rows."""


def declare(
    jobs: Sequence[Job], declared: Declaration, corpus: Corpus
) -> tuple[Swarm | None, list[str]]:
    """The mixtures of a study's arms, and notes on them; None without mixtures.

    Raises:
        ValueError: a component has no text, bounds leave no room, there are too few runs, or the
            swarm to confirm does not match or is not finished.
    """
    members = {job.config.arm: job.config.data.member for job in jobs}
    if all(member is None for member in members.values()):
        return None, []
    for job in jobs:
        data = job.config.data
        if data.member is not None and (data.mixture or not data.pool_shares):
            raise ValueError(
                f"{job.name} is a mixture of a swarm: leave data.mixture and data.pool_shares out"
            )
    config = jobs[0].config
    wanted = {arm: member for arm, member in members.items() if member is not None}
    if config.swarm.folder is not None:
        swarm = _confirming(config, declared, corpus, wanted)
        notes = [f"The swarm that proposed the mixture was {swarm.of}."]
    else:
        swarm = _new(jobs, declared.mixture, corpus, wanted)
        rows = mixture_proposal.matrix(list(swarm.natural), list(swarm.mixtures.values()))
        mixtures.check(np.repeat(rows, len(declared.seeds), axis=0))
        parts = [
            f"{name} {share:.1%} of the pool, at most {swarm.most[name]:.0%}"
            for name, share in swarm.natural.items()
        ]
        notes = [f"Components of the mixtures: {', '.join(parts)}."]
    return _as_declared(config.output, swarm), notes


def _as_declared(output: str, swarm: Swarm) -> Swarm:
    """The swarm with the mixtures that a started study declared.

    Other versions of NumPy may draw others, and other processors round differently.
    """
    if not storage.exists(storage.join(output, DECLARATION)):
        return swarm
    old = read_declaration(output).swarm
    if old is None or dataclasses.replace(old, mixtures=swarm.mixtures) != swarm:
        return swarm
    kept = {arm: mix for arm, mix in old.mixtures.items() if arm in swarm.mixtures}
    return dataclasses.replace(swarm, mixtures={**swarm.mixtures, **kept})


def _new(
    jobs: Sequence[Job], shares: Mapping[str, float], corpus: Corpus, members: Mapping[str, str]
) -> Swarm:
    config = jobs[0].config
    natural = _natural(corpus, shares, config.swarm.buckets)
    names = list(natural)
    parts = components.split(corpus, np.flatnonzero(corpus.pool), names)
    available = np.array([float((corpus.lengths[parts[name]] + 1).sum()) for name in names])
    if empty := [name for name, count in zip(names, available, strict=True) if not count]:
        fewer = "use fewer parts (swarm.buckets)"
        raise ValueError(f"{' and '.join(empty)} of the mixture has no text: {fewer}")
    tokens = max(config.swarm.tokens or 0, *(job.tokens for job in jobs))
    most = np.minimum(1.0, config.swarm.repeats * available / tokens)
    start = np.array(list(natural.values()))
    if (start >= most).any():
        raise ValueError(
            f"{tokens:,} tokens of the natural mixture of {', '.join(names)} already read some text"
            f" more than swarm.repeats={config.swarm.repeats:g} times, so no other can be tried:"
            " raise it, or use fewer tokens (swarm.tokens, train.tokens)"
        )
    numbers = [int(member) for member in members.values() if member.isdigit()]
    if len(numbers) < len(members):
        raise ValueError("the arm that a swarm proposes needs swarm.folder=DIR, the swarm's folder")
    drawn = mixtures.draw(start, most, max(0, max(numbers) - 1), config.swarm.seed)
    rows = [start, mixtures.even(start, most), *drawn]
    apart = dict.fromkeys([name for name, share in shares.items() if not share], 0.0)
    return Swarm(
        mixtures={arm: _by_name(names, rows[int(m)]) | apart for arm, m in members.items()},
        natural=_by_name(names, rows[0]),
        most=_by_name(names, most),
        repeats=config.swarm.repeats,
        tokens=tokens,
        buckets=config.swarm.buckets,
        seed=config.swarm.seed,
    )


def _natural(corpus: Corpus, shares: Mapping[str, float], buckets: int) -> dict[str, float]:
    """The weight of each component in the pool."""
    if buckets < 1:
        raise ValueError(f"swarm.buckets is 1 or more, not {buckets}")
    total = sum(shares.values())
    natural = {}
    edges = [round(100 * i / buckets) for i in range(buckets + 1)]
    for source, share in shares.items():
        if share and (buckets == 1 or source not in corpus.manifest["filtered_sources"]):
            natural[source] = share / total
        elif share:
            for low, high in itertools.pairwise(edges):
                part = components.part_name(source, low, high)
                natural[part] = share / total * (high - low) / 100
    if len(natural) < 2:
        more = "use more sources, or swarm.buckets=2"
        raise ValueError(f"{', '.join(natural)} alone is not a mixture: {more}")
    return natural


def _by_name(names: Sequence[str], weights: FloatArray) -> dict[str, float]:
    return dict(zip(names, np.round(weights, DIGITS).tolist(), strict=True))


def _confirming(
    config: AblationConfig, declared: Declaration, corpus: Corpus, members: Mapping[str, str]
) -> Swarm:
    """The natural, uniform and proposed mixtures of a finished swarm."""
    folder = str(config.swarm.folder)
    study = read_study(folder)
    swarm, found = study.declared.swarm, mixture_proposal.regress(study)
    if swarm is None or swarm.confirms:
        raise ValueError(f"{folder} is not a swarm: give a folder of experiment=mixture")
    if found is None:
        again = "run it again (complete jobs are skipped)"
        raise ValueError(f"the swarm in {folder} is not finished: {again}")
    first = next(iter(study.runs.values())).result
    if first.provenance["corpus"]["fingerprint"] != corpus.fingerprint:
        raise ValueError(
            f"the swarm in {folder} was trained on another corpus than {corpus.folder}"
        )
    any_mixture = next(iter(swarm.mixtures.values()))
    apart = {name: 0.0 for name in any_mixture if name not in swarm.natural}
    left_out = sorted(name for name, weight in declared.mixture.items() if not weight)
    for what, theirs, ours in (
        ("swarm.buckets", swarm.buckets, config.swarm.buckets),
        ("primary.endpoint", study.declared.primary.endpoint, declared.primary.endpoint),
        ("sources left out", sorted(apart), left_out),
    ):
        if theirs != ours:
            raise ValueError(
                f"the swarm in {folder} has {what} {theirs}, not {ours}: give the same"
            )
    names = list(swarm.natural)
    natural, most = (np.array(list(w.values())) for w in (swarm.natural, swarm.most))
    even = mixtures.even(natural, most)
    rows = {NATURAL: natural, UNIFORM: even, PROPOSED: found.proposal.weights}
    if other := sorted(set(members.values()) - set(rows)):
        raise ValueError(f"data.member={other[0]}: a study that confirms a swarm has {list(rows)}")
    return dataclasses.replace(
        swarm,
        mixtures={arm: _by_name(names, rows[member]) | apart for arm, member in members.items()},
        seen=mixture_proposal.swarm_runs(study),
        of=f"{len(study.runs)} runs of {first.model} on {first.tokens:,} tokens each",
    )
