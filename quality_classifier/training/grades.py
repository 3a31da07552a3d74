"""Train from labels (``labels=… target=…``)."""

import tempfile
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quality_classifier import labels, splits
from quality_classifier.evaluation import graded, graded_card, held_out, metrics
from quality_classifier.kinds.calibration import Grades
from quality_classifier.kinds.contract import Model
from quality_classifier.kinds.graded_fitting import GRADED, Graded, fit_curves
from quality_classifier.labels import LabelledDocuments, Scale
from quality_classifier.splits import SPLITS
from quality_classifier.train_config import TrainConfig
from quality_classifier.training import shared
from winnow.commands import console

LEAST = 5
"""Minimum of documents per grade and split; a useful classifier needs hundreds."""


def train(config: TrainConfig) -> None:
    """Train, write and print the figures; ValueError for invalid or too few labels."""
    assert config.target is not None
    shared.check_kind(config.kind, GRADED, "labels")
    scale = None if config.grades is None else labels.declared(config.grades)
    if scale:
        scale.position(config.at_least)  # to raise its errors before reading
    further = {"label": config.target} | ({"group": config.group} if config.group else {})
    documents, sources, unreadable = shared.read_documents(
        config, {"labels": config.labels}, further
    )
    read = sources_of(documents)
    documents = documents.filter(pc.is_valid(documents["label"]))
    if not len(documents):
        raise ValueError("no record has a text and a label: check field.text and target")
    rows, value, scale = labels.read_labels(documents["label"], scale, config.target)
    unlabelled = {name: n - sources_of(documents).get(name, 0) for name, n in read.items()}
    at_least = scale.position(config.at_least)
    found = labels.by_text(documents.drop_columns(["label", "positive"]), rows, value, scale)
    del documents  # a second copy of all text
    split = split_of(found.documents, config)
    grade_counts = counts_of(found, split, scale)
    check_enough(grade_counts, config.group)

    def part(name: str) -> Graded:
        chosen = split == SPLITS.index(name)
        text = shared.whole(found.documents["text"].filter(pa.array(chosen)))
        return Graded(text, found.target[chosen])

    with tempfile.TemporaryDirectory() as folder, console.doing("fitting") as tell:
        learnt, chosen = part("train"), part("calibration")
        model, fitted = GRADED[config.kind](learnt, chosen, shared.fitting(config, folder))
        curves = fit_curves(model.margins(chosen.text), chosen.target, config.calibration)
        grades = Grades(scale.names, scale.values, at_least, curves)
        tested = split == SPLITS.index("test")
        shared.say(f"evaluating on {tested.sum():,} held-out documents")
        tell("evaluating")
        figures = {
            **shared.origin(config),
            "target": config.target,
            "group": config.group,
            "calibration": config.calibration,
            "fitted": fitted,
            "unreadable": unreadable,
            "documents": document_counts(read, unlabelled, found, split),
            "grade_counts": grade_counts,
            "sizes": graded.sizes(found.documents["bytes"].to_numpy()),
            **evaluate(found, tested, model, grades, config),
        }
        learned = found.documents["text"].filter(pa.array(~tested))
        summary, files = graded_card.summary(figures), graded_card.files(figures)
        shared.save(config, sources, model, grades.score, summary, files, learned, grades)
    print(graded_card.terminal_table(figures) + "\n")


def sources_of(documents: pa.Table) -> dict[str, int]:
    """Number of rows of each source, sorted by name."""
    return dict(sorted(Counter(documents["source"].to_pylist()).items()))


def split_of(documents: pa.Table, config: TrainConfig) -> npt.NDArray[np.int8]:
    """The split of each document, by its group or else its text: int8 [n]."""
    key = documents["text"]
    if config.group:
        key = pc.coalesce(documents["group"].cast(pa.large_string()), key)
    return splits.assign(key, config.calibration_share, config.test_share)


def counts_of(
    found: LabelledDocuments, split: npt.NDArray[np.int8], scale: Scale
) -> list[dict[str, Any]]:
    """Number of documents of each grade (nearest to the label) in each split."""
    grade = graded.nearest(found.label, scale.values)
    return [
        {"grade": name}
        | {s: int(((grade == k) & (split == i)).sum()) for i, s in enumerate(SPLITS)}
        for k, name in enumerate(scale.names)
    ]


def check_enough(counts: list[dict[str, Any]], group: str | None) -> None:
    """Raise ValueError for a single grade, or fewer than LEAST documents of one in a split."""
    totals = {row["grade"]: sum(row[split] for split in SPLITS) for row in counts}
    present = [grade for grade, total in totals.items() if total]
    if len(present) == 1:
        raise ValueError(
            f"all documents are of grade {present[0]}: a classifier needs at least two grades"
        )
    for row in sorted(counts, key=lambda row: totals[row["grade"]]):
        for split in SPLITS:
            if row[split] < LEAST:
                left = ",".join(name for name in totals if name != row["grade"])
                together = f" (those of one {group} stay together)" if group else ""
                raise ValueError(
                    f"too few documents of grade {row['grade']}: {totals[row['grade']]}, of which"
                    f" {row[split]} are in the {split} split, which needs {LEAST}{together}. Give"
                    " more, or a larger calibration_share and test_share, or drop the grade: label"
                    f" them as the next one and set grades=[{left}]"
                )


def document_counts(
    read: dict[str, int],
    unlabelled: dict[str, int],
    found: LabelledDocuments,
    split: npt.NDArray[np.int8],
) -> list[dict[str, Any]]:
    """For each source, the records read and left out, and the documents in each split."""
    source = np.array(found.documents["source"].to_pylist(), np.str_)
    rows = []
    for name, n in read.items():
        used = np.bincount(split[source == name], minlength=len(SPLITS)).tolist()
        row = {"source": name, "read": n, "unlabelled": unlabelled[name]}
        row["repeated"] = n - unlabelled[name] - sum(used)
        rows.append(row | dict(zip(SPLITS, used, strict=True)))
    return rows


def evaluate(
    found: LabelledDocuments,
    tested: npt.NDArray[np.bool_],
    model: Model,
    grades: Grades,
    config: TrainConfig,
) -> dict[str, Any]:
    test = found.documents.filter(pa.array(tested))
    target, label = found.target[tested], found.label[tested]
    margin = model.margins(shared.whole(test["text"]))
    score, expected = grades.score.apply(margin), grades.expected(margin)
    positive = target[:, grades.at_least - 1] >= 0.5
    columns = {"label": label, "expected_grade": expected, "quality_score": score}
    for name, column in {**columns, "positive": positive}.items():
        test = test.append_column(name, pa.array(column))
    n = len(test)
    exact = expected.astype(np.float64)
    about_score = metrics.evaluate(
        score, positive, np.ones(n), np.zeros(n, np.str_), config.bootstrap, config.seed
    )
    document, value = found.labels
    of_tested = tested[document]
    place = np.cumsum(tested) - 1  # among the tested documents
    grade = graded.nearest(label, grades.values)

    def kept(alpha: float) -> dict[str, float]:
        rate = metrics.expected_keep_rate(score, alpha)
        classes = splits.CLASSES.items()
        return {f"{name}_documents": float(rate[positive == of].mean()) for of, name in classes}

    return {
        "tested": n,
        "grades": list(grades.names),
        "at_least": grades.names[grades.at_least],
        "metrics": {
            **graded.agreement(label, exact, config.bootstrap, config.seed),
            **{name: vars(estimate) for name, estimate in about_score.items()},
        },
        "confusion": graded.confusion(label, exact, grades.values),
        "reliability": graded.reliability(grades.reached(margin), target),
        "noise": graded.label_noise(place[document[of_tested]], value[of_tested], exact),
        "groups": graded.by_group(test, ["source", "length", *config.metadata], positive),
        "yield": [{"alpha": float(alpha), **kept(alpha)} for alpha in config.alphas],
        "histograms": [
            {
                "class": splits.CLASSES[k >= grades.at_least],
                "source": f"grade {name}",
                "documents": held_out.histogram(score[grade == k]),
            }
            for k, name in enumerate(grades.names)
        ],
        "shuffled": held_out.shuffled_words(
            test, lambda text: grades.score.apply(model.margins(text)), config.seed
        ),
    }
