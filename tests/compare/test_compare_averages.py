"""GLaM's averages from the published cells of GLaM and GPT-3 (zero-, one- and few-shot)."""

from statistics import mean

import pytest

from ablations.contrasts.averages import AVERAGES, NLG, NLU, split_rows

# Row: GPT-3 0, GLaM 0, GPT-3 1, GLaM 1, GPT-3 few, GLaM few (GLaM's paper and PaLM's Table 4).
PUBLISHED = """
triviaqa:exact_match          64.3 71.3 68.0 75.8 71.2 75.8
natural_questions:exact_match 14.6 24.7 23.0 26.3 29.9 32.5
web_questions:exact_match     14.4 19.0 25.3 24.4 41.5 41.1
lambada:accuracy              76.2 64.2 72.5 80.9 86.4 86.6
drop:f1                       23.6 57.3 34.3 57.8 36.5 58.6
coqa:f1                       81.5 78.8 84.0 79.6 85.0 79.6
quac:f1                       41.5 40.3 43.4 42.8 44.3 42.7
squad_v2:f1                   59.5 71.1 65.4 71.8 69.8 71.8
squad_v2:exact_match          52.6 64.7 60.1 66.5 64.9 67.0
hellaswag:accuracy            78.9 76.6 78.1 76.8 79.3 77.2
storycloze:accuracy           83.2 82.5 84.7 84.0 87.7 86.7
winograd:accuracy             88.3 87.2 89.7 83.9 88.6 88.6
winogrande:accuracy           70.2 73.5 73.2 73.1 77.7 79.2
race_m:accuracy               58.4 64.0 57.4 65.6 58.1 66.9
race_h:accuracy               45.5 46.9 45.9 48.7 46.8 49.3
piqa:accuracy                 81.0 80.4 80.5 81.4 82.3 81.8
arc_e:accuracy                68.8 71.6 71.2 76.6 70.1 78.9
arc_c:accuracy                51.4 48.0 53.2 50.3 51.5 52.0
openbookqa:accuracy           57.6 53.4 58.8 55.2 65.4 63.0
boolq:accuracy                60.5 83.1 76.7 82.8 77.5 83.1
copa:accuracy                 91.0 91.0 87.0 92.0 92.0 93.0
rte:accuracy                  63.5 68.8 70.4 71.5 72.9 76.2
wic:accuracy                   0.0 50.3 48.6 52.7 55.3 56.3
multirc:f1a                   72.9 73.7 72.9 74.7 74.8 77.5
wsc:accuracy                  65.4 85.3 69.2 83.9 75.0 85.6
record:accuracy               90.2 90.3 90.2 90.3 89.0 90.6
cb:accuracy                   46.4 48.2 64.3 73.2 82.1 84.8
anli_r1:accuracy              34.6 39.2 32.0 42.4 36.8 44.3
anli_r2:accuracy              35.4 37.3 33.9 40.0 34.0 41.2
anli_r3:accuracy              34.5 41.3 35.1 40.8 40.2 44.7
"""

COLUMNS = ("gpt3 0", "glam 0", "gpt3 1", "glam 1", "gpt3 few", "glam few")
TABLE = {}
for line in PUBLISHED.split("\n"):
    if line:
        name, *cells = line.split()
        TABLE[tuple(name.split(":"))] = dict(zip(COLUMNS, map(float, cells), strict=True))

PRINTED = {
    "nlg": (47.6, 54.6, 52.9, 58.4, 58.8, 61.6),
    "nlu": (60.8, 66.2, 65.4, 68.6, 68.4, 71.4),
    "all": (56.9, 62.7, 61.6, 65.5, 65.2, 68.1),
}
# Averages that do not come out to rounding, with what does: some cell is off by a little. "All" of
# GLaM zero-shot follows its NLU; the few-shot "All" of both models fits no mean of these rows, and
# nobody has explained it.
MISSES = {
    ("nlg", "glam few"): 61.7,
    ("nlu", "glam 0"): 66.3,
    ("nlu", "glam few"): 71.5,  # 71.4 with CB 84.0 instead of PaLM's 84.8
    ("all", "glam 0"): 62.8,
    ("all", "gpt3 few"): 65.6,
    ("all", "glam few"): 68.6,
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", ["nlg", "nlu", "all"])
def test_published_averages_come_out(name, column):
    scores = {row: cells[column] for row, cells in TABLE.items()}
    rows, missing = split_rows(name, scores)
    printed = PRINTED[name][COLUMNS.index(column)]
    wanted = MISSES.get((name, column), printed)
    assert round(mean(scores[row] for row in rows), 1) == pytest.approx(wanted)
    assert not missing


def test_few_shot_nlu_comes_out_with_the_other_reading_of_cb():
    scores = {row: cells["glam few"] for row, cells in TABLE.items()}
    scores |= {("cb", "accuracy"): 84.0}
    rows, _ = split_rows("nlu", scores)
    assert round(mean(scores[row] for row in rows), 1) == 71.4


def test_rows_are_thirty_for_twenty_nine_tasks():
    assert (len(NLG), len(NLU), len(AVERAGES["all"])) == (9, 21, 30)
    assert len({task for task, _ in AVERAGES["all"]}) == 29
    assert len(set(AVERAGES["all"])) == 30
    assert set(AVERAGES["all"]) == set(TABLE)


def test_missing_rows_are_listed():
    have = [("coqa", "f1"), ("drop", "f1"), ("boolq", "accuracy")]
    present, missing = split_rows("nlg", have)
    assert present == (("drop", "f1"), ("coqa", "f1"))
    assert set(missing) == set(NLG) - set(present)
    assert split_rows("nlu", []) == ((), NLU)
