"""Arms of a corpus, made from the scores and draws stored with its documents.

A rule chooses among the documents of the sources that the pipeline filtered; those that it took
whole stay whole, as in GLaM. Draws are the pipeline's, so arms are nested in alpha, and ``random``
at the yield of ``pareto`` shares with it what it can.

A threshold or a rate that is not given is the one that keeps as many tokens as ``pareto`` at
``alpha``: then two arms differ in which text they hold, not in how much.
"""

import numpy as np
import numpy.typing as npt

from ablations.study.config import DataChoice, DataRule
from model.data import scored
from model.data.corpus import Arm, BoolArray, Corpus, IntArray, tally, write_arm
from pipeline.rules.decision import FloatArray, Rule
from pipeline.rules.solve import sketch, solve


def ensure(corpus: Corpus, choice: DataChoice) -> Arm:
    """The arm that is asked for, written to the corpus if it is not there yet.

    Raises:
        ValueError: the choice lacks a parameter, or the corpus has another arm of that name.
    """
    if choice.rule == DataRule.stored:
        return corpus.arm(choice.arm)
    rule = find_rule(corpus, choice)
    score, draw = corpus.column(scored.QUALITY_SCORE), corpus.column(scored.KEEP_DRAW)
    mask = corpus.pool & (rule.keep(score, draw) | ~corpus.filterable)
    # Spelt as model/prepare.py spells the arm that it writes.
    definition = {"rule": rule.name} | ({} if rule.name == "all" else {"parameter": rule.parameter})
    return write_arm(corpus, choice.arm, mask, definition)


def find_rule(corpus: Corpus, choice: DataChoice) -> Rule:
    """The rule with its parameter, solved for where it was left out.

    Raises:
        ValueError: there is no parameter, and no alpha to solve for; or nothing to choose from.
    """
    match choice.rule:
        case DataRule.all:
            return Rule("all")
        case DataRule.pareto:
            return Rule("pareto", _alpha(choice))
        case DataRule.threshold:
            given = choice.threshold
        case _:
            given = choice.rate
    if given is not None:
        return Rule("threshold" if choice.rule == DataRule.threshold else "random", given)
    score, draw, tokens = choosable(corpus)
    goal = int(tokens[Rule("pareto", _alpha(choice)).keep(score, draw)].sum())
    if choice.rule == DataRule.threshold:
        total = sketch("threshold", score, draw, tokens)
        return solve("threshold", total, goal / int(tokens.sum()))
    return Rule("random", rate_for(draw, tokens, goal))


def choosable(corpus: Corpus) -> tuple[npt.NDArray[np.float32], FloatArray, IntArray]:
    """Scores, draws and targets of the n documents that a rule chooses among: [n] each.

    Raises:
        ValueError: there are none.
    """
    among = corpus.pool & corpus.filterable
    if not among.any():
        raise ValueError(
            f"the corpus {corpus.folder} has no documents of a filtered source, so arms can't"
            " differ: run the pipeline with --filter SOURCE"
        )
    score = corpus.column(scored.QUALITY_SCORE)[among]
    return score, corpus.column(scored.KEEP_DRAW)[among], corpus.lengths[among] + 1


def rate_for(draw: FloatArray, tokens: IntArray, goal: int) -> float:
    """The rate at which ``draw < rate`` keeps the number of tokens nearest to ``goal``."""
    order = np.argsort(draw, kind="stable")
    kept = np.concatenate([[0], np.cumsum(tokens[order])])
    first_out = int(np.argmin(np.abs(kept - goal)))
    return float(draw[order[first_out]]) if first_out < len(draw) else 1.0


def pool_shares(corpus: Corpus) -> dict[str, float]:
    """Each source's part of the whole pool's tokens."""
    targets = {name: row["targets"] for name, row in tally(corpus, corpus.pool).items()}
    total = sum(targets.values())
    return {name: round(count / total, 6) for name, count in targets.items() if count}


def lowest(corpus: Corpus, mask: BoolArray, share: float) -> BoolArray:
    """Those of the chosen documents whose score is in the lowest ``share``: bool [documents]."""
    score = corpus.column(scored.QUALITY_SCORE)
    return mask & (score <= np.quantile(score[mask], share))


def _alpha(choice: DataChoice) -> float:
    if choice.alpha is None:
        raise ValueError(f"the {choice.rule} arm {choice.name!r} needs an alpha: give data.alpha=9")
    return choice.alpha
