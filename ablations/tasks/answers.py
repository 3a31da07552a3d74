"""Exact match and F1 of generated answers, by the rules of each dataset's evaluation script.

An answer is a list of spans; only DROP has answers of several. Scores are in [0, 1].
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

Answer = Sequence[str]
Scores = tuple[float, float]
"""Exact match and F1."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_QUAC_LEAST_F1 = 0.4


def normalise(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def f1(prediction: str, answer: str) -> float:
    """SQuAD's F1 of two bags of normalised words; where one is empty, 1 if both are, else 0."""
    predicted, wanted = normalise(prediction).split(), normalise(answer).split()
    if not predicted or not wanted:
        return float(predicted == wanted)
    common = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * common / (len(predicted) + len(wanted))


def squad(prediction: str, answers: Sequence[Answer]) -> Scores:
    """The best score over all acceptable answers; TriviaQA and the other open sets use it too."""
    texts = [" ".join(answer) for answer in answers]
    exact = max(float(normalise(prediction) == normalise(text)) for text in texts)
    return exact, max(f1(prediction, text) for text in texts)


def leave_one_out(prediction: str, answers: Sequence[Answer]) -> Scores:
    """CoQA's rule: the mean over annotators of the best score against all the others.

    This compares a model with as many annotators as a human.
    """
    if len(answers) == 1:
        return squad(prediction, answers)
    rest = [[*answers[:i], *answers[i + 1 :]] for i in range(len(answers))]
    exact, overlap = zip(*(squad(prediction, others) for others in rest), strict=True)
    return float(np.mean(exact)), float(np.mean(overlap))


def quac(prediction: str, answers: Sequence[Answer]) -> Scores | None:
    """QuAC's rule: CoQA's, but None (not counted) where the annotators' own F1 is below 0.4."""
    if len(answers) > 1:
        people = [
            squad(" ".join(answer), [*answers[:i], *answers[i + 1 :]])[1]
            for i, answer in enumerate(answers)
        ]
        if np.mean(people) < _QUAC_LEAST_F1:
            return None
    return leave_one_out(prediction, answers)


def drop(prediction: str, answers: Sequence[Answer]) -> Scores:
    """DROP's rule: the spans of the prediction, aligned one to one with those of an answer.

    F1 is the mean over the larger number of spans, rounded to 2 digits as in DROP's script. A span
    with none of its partner's numbers scores 0. The prediction is split at commas and "and" only if
    the answer has several spans, since a single span may contain commas.
    """
    best = (0.0, 0.0)
    for answer in answers:
        spans = [prediction] if len(answer) == 1 else re.split(r", | and ", prediction)
        predicted, wanted = ([_drop_normalise(s) for s in texts] for texts in (spans, answer))
        exact = float(set(predicted) == set(wanted) and len(predicted) == len(wanted))
        scores = np.array([[_drop_f1(p, w) for p in predicted] for w in wanted])
        pairs = linear_sum_assignment(scores, maximize=True)
        overlap = round(float(scores[pairs].sum()) / max(scores.shape), 2)
        best = max(best[0], exact), max(best[1], overlap)
    return best


def _drop_normalise(text: str) -> str:
    """SQuAD's normalisation; hyphens also split words, and numbers are written as floats."""
    words = []
    for word in re.split(" |-", text.lower()):
        bare = word if _number(word) is not None else word.translate(_PUNCTUATION)
        number = _number(bare)
        words += _ARTICLES.sub(" ", bare if number is None else str(number)).split()
    return " ".join(words)


def _drop_f1(prediction: str, answer: str) -> float:
    predicted, wanted = set(prediction.split()), set(answer.split())
    numbers = {word for word in wanted if _number(word) is not None}
    if numbers and not numbers & predicted:
        return 0.0
    if not predicted or not wanted:
        return float(predicted == wanted)
    return 2 * len(predicted & wanted) / (len(predicted) + len(wanted))


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


RULES: dict[str, Callable[[str, Sequence[Answer]], Scores | None]] = {
    "squad": squad,
    "leave_one_out": leave_one_out,
    "quac": quac,
    "drop": drop,
}
