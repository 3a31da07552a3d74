"""GLaM's averages over tasks.

GLaM reports 30 rows for its 29 tasks: SQuADv2 counts twice in NLG, as F1 and as exact match. NLG is
the plain mean of 9 rows, NLU of 21, "All" of the 30. A test derives GPT-3's and GLaM's published
averages from their per-task tables by these rules.
"""

from collections.abc import Iterable

Row = tuple[str, str]
"""Task and metric, as in ``tasks.arrow``."""

NLG: tuple[Row, ...] = (
    *((task, "exact_match") for task in ("triviaqa", "natural_questions", "web_questions")),
    ("lambada", "accuracy"),
    *((task, "f1") for task in ("drop", "coqa", "quac", "squad_v2")),
    ("squad_v2", "exact_match"),
)

_BY_ACCURACY = """
    hellaswag storycloze winograd winogrande race_m race_h piqa arc_e arc_c openbookqa boolq copa
    rte wic wsc record cb anli_r1 anli_r2 anli_r3
"""
NLU: tuple[Row, ...] = (*((task, "accuracy") for task in _BY_ACCURACY.split()), ("multirc", "f1a"))

AVERAGES: dict[str, tuple[Row, ...]] = {"nlg": NLG, "nlu": NLU, "all": NLG + NLU}
"""Rows of each average, by its name."""


def split_rows(name: str, have: Iterable[Row]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The available and the missing rows of an average."""
    known, rows = set(have), AVERAGES[name]
    return tuple(r for r in rows if r in known), tuple(r for r in rows if r not in known)
