"""Train from classes."""

import tempfile
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from omegaconf import DictConfig

from quality_classifier import splits
from quality_classifier.evaluation import card, held_out
from quality_classifier.features.hashed_features import FeatureConfig, hashed_features
from quality_classifier.kinds import KINDS
from quality_classifier.kinds.calibration import Calibration
from quality_classifier.kinds.contract import Fitting, Labelled, Model
from quality_classifier.kinds.fitting import fit_calibration
from quality_classifier.splits import CLASSES
from quality_classifier.train_config import TrainConfig
from quality_classifier.training import grades, leave_one_out, pairs
from quality_classifier.training.leave_one_out import Unseen
from quality_classifier.training.shared import fitting, origin, read_documents, save, say, whole
from winnow.commands import command_line, console

LEAST = 10
"""Minimum of documents per class and split; a useful classifier needs hundreds."""


def train(config: TrainConfig) -> None:
    """Learn from classes, labels or pairs, and print a summary; ValueError if that fails."""
    if config.labels is not None:
        grades.train(config)
    elif config.pairs is not None:
        pairs.train(config)
    else:
        train_classes(config)
    print(f"time:        {console.duration(console.elapsed())}")
    print(f"classifier:  {config.output}, described in card.md")
    flags = ["--source", "web=GLOB", "--filter", "web", "--classifier", config.output]
    print(console.next_command("run", *flags, "--output", "scored"))


def train_classes(config: TrainConfig) -> None:
    values = {"positive": config.positive, "negative": config.negative}
    documents, sources, unreadable = read_documents(config, values, {})
    unique = splits.deduplicate(documents)
    del documents  # a second copy of all text
    split = splits.assign(unique.documents["text"], config.calibration_share, config.test_share)
    documents = unique.documents.append_column("split", pa.array(split))
    counts = held_out.document_counts(unique.counts, documents)
    check_enough(counts)

    with tempfile.TemporaryDirectory() as folder, console.doing("fitting") as tell:
        how = fitting(config, folder)
        unseen = unseen_sources(documents, config, how)
        model, calibration, fitted = fit(documents, config, unseen, how)

        def score(text: pa.Array) -> npt.NDArray[np.float32]:
            return calibration.apply(model.margins(text))

        test = part(documents, "test")
        say(f"evaluating on {len(test):,} held-out documents")
        tell("evaluating")
        test = test.append_column("quality_score", pa.array(score(whole(test["text"]))))
        figures = {
            **origin(config),
            "documents": counts,
            "unreadable": unreadable,
            "fitted": fitted,
            "calibration": calibration.to_json(),
            "source_weight_limit": config.source_weight_limit,
            "alpha": config.audit.alpha,
            "threshold": config.audit.threshold,
            **held_out.evaluate(test, config),
            "unseen": unseen.rows if unseen else [],
            "unseen_trials": unseen.trials if unseen else [],
            "shuffled": held_out.shuffled_words(test, score, config.seed),
        }
        tested = pc.equal(documents["split"], splits.SPLITS.index("test"))
        learned = documents["text"].filter(pc.invert(tested))
        summary, files = card.summary(figures), card.files(figures, test)
        save(config, sources, model, calibration, summary, files, learned)
    print(card.terminal_table(figures))
    print(f"\nelsewhere:   {card.elsewhere(figures)}")


def fit(
    documents: pa.Table, config: TrainConfig, unseen: Unseen | None, how: Fitting
) -> tuple[Model, Calibration, dict[str, Any]]:
    """The model, its calibration, and the card's figures of the fit.

    If sources were left out in turn, ``unseen`` has the best penalty.
    """
    train, calibration = (
        Labelled(whole(rows["text"]), rows["positive"].to_numpy(), balanced(rows, config))
        for rows in (part(documents, "train"), part(documents, "calibration"))
    )
    if unseen and config.kind == "hashed_linear":
        how = replace(how, settings=replace(how.settings, c=[unseen.c]))
    model, fitted = KINDS[config.kind].fit(train, calibration, how)
    margin = model.margins(calibration.text)
    calibrated = fit_calibration(margin, calibration.positive, calibration.weight, how.method)
    return model, calibrated, fitted


def unseen_sources(documents: pa.Table, config: TrainConfig, how: Fitting) -> Unseen | None:
    """Evaluate the kind on sources left out of training, on a sample of the documents."""
    positive = documents["positive"].to_numpy()
    source = np.array(documents["source"].to_pylist(), np.str_)
    split = documents["split"].to_numpy()
    least = config.unseen_sources
    if not (least and leave_one_out.groups_to_leave_out(source, positive, least)):
        return None
    rows = leave_one_out.even_sample(source, positive, split, leave_one_out.DOCUMENTS)
    say(f"leaving sources out in turn, on {len(rows):,} documents")
    text = whole(documents["text"]).take(pa.array(rows))
    positive, source, sampled = positive[rows], source[rows], split[rows]
    if config.kind == "hashed_linear":
        own = config.hashed_linear
        features = hashed_features(text, FeatureConfig(own.log2_buckets, own.max_ngram))
        scale = np.count_nonzero(split == 0) / np.count_nonzero(sampled == 0)
        fit, cs = leave_one_out.linear_fit(features, positive, scale), own.c
        most = leave_one_out.GROUPS
    else:
        fit, cs = any_fit(text, positive, config.kind, how), [1.0]
        most = leave_one_out.COSTLY_GROUPS
    return leave_one_out.leave_sources_out(
        fit,
        cs,
        positive,
        source,
        sampled,
        least=least,
        most=most,
        method=config.calibration,
        source_weight_limit=config.source_weight_limit,
        alpha=config.audit.alpha,
    )


def any_fit(
    text: pa.Array, positive: npt.NDArray[np.bool_], kind: str, how: Fitting
) -> leave_one_out.Fit:
    """A silent fit of a kind without ``c``."""

    def fit(
        _: float, rows: leave_one_out.Rows, weight: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        learnt = Labelled(text.take(pa.array(rows)), positive[rows], weight)
        model, _fitted = KINDS[kind].fit(learnt, learnt, replace(how, say=lambda line: None))
        return model.margins(text)

    return fit


def check_enough(counts: list[dict[str, Any]]) -> None:
    """Raise ValueError if a split has fewer than LEAST documents of a class."""
    for name in CLASSES.values():
        for split in splits.SPLITS:
            found = sum(row[split] for row in counts if row["class"] == name)
            if found < LEAST:
                total = sum(row[s] for row in counts if row["class"] == name for s in splits.SPLITS)
                raise ValueError(
                    f"too few {name} documents: {total} without duplicates, of which {found} are"
                    f" in the {split} split, which needs {LEAST}. Give some hundreds at least"
                )


def part(documents: pa.Table, split: str) -> pa.Table:
    return documents.filter(pc.equal(documents["split"], splits.SPLITS.index(split)))


def balanced(documents: pa.Table, config: TrainConfig) -> npt.NDArray[np.float64]:
    """The weight of each of n documents: float64 [n]."""
    source = np.array(documents["source"].to_pylist(), np.str_)
    positive = documents["positive"].to_numpy()
    return splits.balanced_weights(positive, source, config.source_weight_limit)


@command_line.main("classifier/train")
def main(config: DictConfig) -> None:
    command_line.run(train, config, again="nothing was written, run the same command again")
