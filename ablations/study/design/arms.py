"""Build the arms of a corpus from the scores and draws stored with its documents.

A rule selects documents of the filtered sources; other sources pass through unfiltered, as in GLaM.
Draws are the pipeline's, so arms are nested in alpha, and ``random`` overlaps with ``pareto`` as
far as possible. A null threshold or rate is solved to keep as many tokens as ``pareto`` at
``alpha``, so that arms differ in which text they have, not in how much.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ablations.study.design.config import DataChoice, DataRule
from model.data import scored
from model.data.arms import Arm, BoolArray
from model.data.controls import Controls
from model.data.corpus import Corpus, IntArray, tally, write_arm
from model.data.order import CYCLE
from pipeline.rules.decision import FloatArray, Rule
from pipeline.rules.solve import sketch, solve


def ensure(corpus: Corpus, choice: DataChoice, tokens: int = 0) -> Arm:
    """The arm of a choice; written to the corpus if missing.

    ``tokens`` is a job's training budget, for ``passes`` and ``pool_passes``.

    Raises:
        ValueError: the choice lacks a parameter, or the corpus has another arm of that name.
    """
    unique = None if choice.passes is None else math.ceil(tokens / choice.passes)
    part = None if choice.pool_passes is None else math.ceil(tokens / choice.pool_passes)
    controls = Controls(choice.half, unique, choice.shuffled, part).to_json()
    if choice.rule == DataRule.stored:
        stored = corpus.arm(choice.name if controls else choice.arm)
        if not controls:
            return stored
        chosen = stored.mask if stored.copies is None else stored.copies
        definition = stored.about["definition"]
    else:
        rule = find_rule(corpus, choice)
        score, draw = corpus.column(scored.QUALITY_SCORE), corpus.column(scored.KEEP_DRAW)
        chosen = corpus.pool & (rule.keep(score, draw) | ~corpus.filterable)
        # Spelled like the arm that model/prepare.py writes.
        definition = {"rule": rule.name}
        definition |= {} if rule.name == "all" else {"parameter": rule.parameter}
    return write_arm(corpus, choice.arm, chosen, definition, controls)


def find_rule(corpus: Corpus, choice: DataChoice) -> Rule:
    """The rule, its parameter solved for if null; a ValueError if that is impossible."""
    if choice.rule == DataRule.all:
        return Rule("all")
    if choice.rule == DataRule.pareto:
        return Rule("pareto", _alpha(choice))
    parameter = choice.threshold if choice.rule == DataRule.threshold else choice.rate
    if parameter is not None:
        return Rule("threshold" if choice.rule == DataRule.threshold else "random", parameter)
    score, draw, tokens = candidates(corpus)
    goal = int(tokens[Rule("pareto", _alpha(choice)).keep(score, draw)].sum())
    if choice.rule == DataRule.threshold:
        total = sketch("threshold", score, draw, tokens)
        return solve("threshold", total, goal / int(tokens.sum()))
    return Rule("random", rate_for(draw, tokens, goal))


def candidates(corpus: Corpus) -> tuple[npt.NDArray[np.float32], FloatArray, IntArray]:
    """Scores, draws and targets of the n documents to select from, [n] each; ValueError if none."""
    among = corpus.pool & corpus.filterable
    if not among.any():
        raise ValueError(
            f"the corpus {corpus.folder} has no documents of a filtered source, so arms can't"
            " differ: run the pipeline with --filter SOURCE"
        )
    score = corpus.column(scored.QUALITY_SCORE)[among]
    return score, corpus.column(scored.KEEP_DRAW)[among], corpus.lengths[among] + 1


def rate_for(draw: FloatArray, tokens: IntArray, goal: int) -> float:
    """The rate for which ``draw < rate`` keeps closest to ``goal`` tokens."""
    order = np.argsort(draw, kind="stable")
    kept = np.concatenate([[0], np.cumsum(tokens[order])])
    first_out = int(np.argmin(np.abs(kept - goal)))
    return float(draw[order[first_out]]) if first_out < len(draw) else 1.0


def pool_shares(corpus: Corpus) -> dict[str, float]:
    """Each source's share of the pool's tokens."""
    targets = {name: row["targets"] for name, row in tally(corpus, corpus.pool).items()}
    total = sum(targets.values())
    return {name: round(count / total, 6) for name, count in targets.items() if count}


def common_shares(
    corpus: Corpus, arms: Mapping[str, Arm], unseen: Sequence[str] = ()
) -> tuple[dict[str, float], list[str]]:
    """The mixture of a study: the pool's shares of sources that all arms have, 0 for the others.

    Returns weights by source (none without arms), and a note for each source left out. ``arms`` are
    by their names in the study, ``unseen`` the sources that no arm may train on.

    Raises:
        ValueError: no filtered source is left, so all arms would be equal.
    """
    if not arms:
        return {}, []
    shares = pool_shares(corpus)
    weights, notes = dict(shares), []
    if reserved := [source for source in shares if source in unseen]:
        weights |= dict.fromkeys(reserved, 0.0)
        verb, them = ("is", "it") if len(reserved) == 1 else ("are", "them")
        only = f"{verb} for evaluation only: no arm trains on {them}."
        notes.append(f"{' and '.join(reserved)} {only}")
    for source, share in shares.items():
        if source in reserved:
            continue
        ours = corpus.source_index == corpus.sources.index(source)
        if without := [name for name, arm in arms.items() if not (arm.mask & ours).any()]:
            weights[source] = 0.0
            notes.append(
                f"{source} ({share:.2%} of the pool's tokens) is left out of every arm's text:"
                f" {' and '.join(without)} kept none of its documents"
                " (data.pool_shares=false reads each arm's sources as they come)."
            )
    total = sum(weights.values())
    for source in [name for name, w in weights.items() if 0 < w < total / CYCLE]:
        weights[source] = 0.0
        notes.append(
            f"{source} ({shares[source]:.2g} of the pool's tokens) is left out of every arm's"
            f" text: it is less than one row in {CYCLE:,}."
        )
    filtered = set(corpus.manifest["filtered_sources"])
    if not any(weights[source] for source in filtered & weights.keys()):
        raise ValueError(
            f"no filtered source ({', '.join(sorted(filtered))}) has documents in every arm, so"
            f" all arms would read the same text. {' '.join(notes)} Use a weaker rule"
        )
    return weights, notes


def lowest(corpus: Corpus, mask: BoolArray, share: float) -> BoolArray:
    """The documents of ``mask`` with the lowest ``share`` of scores: bool [documents]."""
    score = corpus.column(scored.QUALITY_SCORE)
    return mask & (score <= np.quantile(score[mask], share))


def _alpha(choice: DataChoice) -> float:
    if choice.alpha is None:
        raise ValueError(f"the {choice.rule} arm {choice.name!r} needs an alpha: give data.alpha=9")
    return choice.alpha
