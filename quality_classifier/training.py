"""Read, split, fit, calibrate, evaluate, write: what ``quality_classifier/train.py`` does."""

import functools
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from omegaconf import DictConfig

from pipeline.readers import ReadOptions
from quality_classifier import artifact, fingerprints
from quality_classifier.evaluation import card, held_out, splits
from quality_classifier.evaluation.leave_one_out import leave_one_source_out
from quality_classifier.evaluation.splits import CLASSES
from quality_classifier.features.hashed_features import FeatureConfig, hashed_features
from quality_classifier.kinds import KINDS
from quality_classifier.kinds.calibration import Calibration
from quality_classifier.kinds.contract import Labelled, Model
from quality_classifier.kinds.fitting import fit_calibration
from quality_classifier.train_config import TrainConfig
from quality_classifier.train_input import Input, find_sources, read
from winnow import command_line, inputs, telling
from winnow.version import code_version

LEAST = 10
"""Documents of each class that each split must hold; a useful classifier needs hundreds."""


def train(config: TrainConfig) -> None:
    """Read, split, fit, calibrate, evaluate, write.

    Raises:
        ValueError: the input is too little or can't be read as told; the output is there already.
    """
    if os.path.exists(config.output):
        raise ValueError(f"{config.output} is there already: choose another output, or remove it")
    find = functools.partial(inputs.find, say=say)
    sources = find_sources({True: config.positive, False: config.negative}, config.field, find, say)
    how = Input(ReadOptions.of(config), tuple(config.metadata), config.list_separator)
    documents, unreadable = read(sources, how, say)
    unique = splits.deduplicate(documents)
    del documents  # it holds all text once more
    split = splits.assign(unique.documents["text"], config.calibration_share, config.test_share)
    documents = unique.documents.append_column("split", pa.array(split))
    counts = held_out.document_counts(unique.counts, documents)
    check_enough(counts)

    # fastText knows models as files only.
    with tempfile.TemporaryDirectory() as folder, telling.doing("fitting") as tell:
        model, calibration, fitted = fit(documents, config, Path(folder))

        def score(text: pa.Array) -> npt.NDArray[np.float32]:
            return calibration.apply(model.margins(text))

        test = part(documents, "test")
        say(f"evaluating on {len(test):,} held-out documents")
        tell("evaluating")
        test = test.append_column("quality_score", pa.array(score(whole(test["text"]))))
        figures = {
            "kind": config.kind,
            "seed": config.seed,
            "code": code_version(),
            "documents": counts,
            "unreadable": unreadable,
            "fitted": fitted,
            "calibration": calibration.to_json(),
            "source_weight_limit": config.source_weight_limit,
            "alpha": config.audit.alpha,
            "threshold": config.audit.threshold,
            **held_out.evaluate(test, questions(config)),
            "unseen": unseen_sources(documents, fitted, config) if config.unseen_sources else [],
            "shuffled": held_out.shuffled_words(test, score, config.seed),
        }
        tested = pc.equal(documents["split"], splits.SPLITS.index("test"))
        learned = fingerprints.of_texts(documents["text"].filter(pc.invert(tested)))
        provenance = {
            "code": figures["code"],
            "settings": settings(config),
            "sources": {
                CLASSES[positive]: {
                    s.name: list(s.paths) for s in sources if s.positive == positive
                }
                for positive in CLASSES
            },
        }
        artifact.save(
            Path(config.output),
            model,
            calibration,
            provenance,
            card.summary(figures),
            {**card.files(figures, test), fingerprints.NAME: fingerprints.dumps(learned)},
        )
    print(card.terminal_table(figures))
    print(f"\ntime:        {telling.duration(telling.elapsed())}")
    print(f"classifier:  {config.output}, described in card.md")
    flags = ["--source", "web=GLOB", "--filter", "web", "--classifier", config.output]
    print(telling.next_command("run", *flags, "--output", "scored"))


def fit(
    documents: pa.Table, config: TrainConfig, folder: Path
) -> tuple[Model, Calibration, dict[str, Any]]:
    """The model, from the training split, its calibration, from its own, and what the card says.

    ``folder`` is a place for the kind's files.
    """
    train, calibration = (
        Labelled(whole(rows["text"]), rows["positive"].to_numpy(), balanced(rows, config))
        for rows in (part(documents, "train"), part(documents, "calibration"))
    )
    model, fitted = KINDS[config.kind].fit(
        train,
        calibration,
        getattr(config, config.kind),
        method=config.calibration,
        seed=config.seed,
        folder=folder,
        say=say,
    )
    margin = model.margins(calibration.text)
    return (
        model,
        fit_calibration(margin, calibration.positive, calibration.weight, config.calibration),
        fitted,
    )


def unseen_sources(
    documents: pa.Table, fitted: dict[str, Any], config: TrainConfig
) -> list[dict[str, Any]]:
    """The card's figures on sources left out of training, with the penalty that was chosen."""
    features = FeatureConfig(config.hashed_linear.log2_buckets, config.hashed_linear.max_ngram)
    return leave_one_source_out(
        hashed_features(whole(documents["text"]), features),
        documents["positive"].to_numpy(),
        np.array(documents["source"].to_pylist(), np.str_),
        documents["split"].to_numpy(),
        min(fitted["trials"], key=lambda trial: trial["log_loss"])["c"],
        config.calibration,
        config.source_weight_limit,
        config.audit.alpha,
        say,
    )


def check_enough(counts: list[dict[str, Any]]) -> None:
    """Refuse to train on next to nothing.

    Raises:
        ValueError: a split holds fewer than LEAST documents of a class.
    """
    for name in CLASSES.values():
        for split in splits.SPLITS:
            found = sum(row[split] for row in counts if row["class"] == name)
            if found < LEAST:
                total = sum(row[s] for row in counts if row["class"] == name for s in splits.SPLITS)
                raise ValueError(
                    f"too few {name} documents: {total} without duplicates, of which {found} fall"
                    f" to the {split} split, which needs {LEAST}. Give some hundreds at least"
                )


def questions(config: TrainConfig) -> held_out.Questions:
    """What the card is to answer."""
    return held_out.Questions(
        seed=config.seed,
        bootstrap=config.bootstrap,
        source_weight_limit=config.source_weight_limit,
        alphas=config.alphas,
        by=[*config.audit.by, *config.metadata],
        alpha=config.audit.alpha,
        threshold=config.audit.threshold,
    )


def settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that made the classifier, without those of the other kind and of this run."""
    out = asdict(config)
    for name in ("positive", "negative", "output", *(set(KINDS) - {config.kind})):
        del out[name]
    return out


def part(documents: pa.Table, split: str) -> pa.Table:
    """The documents of one split."""
    return documents.filter(pc.equal(documents["split"], splits.SPLITS.index(split)))


def balanced(documents: pa.Table, config: TrainConfig) -> npt.NDArray[np.float64]:
    """The weight of each of n documents: float64 [n]."""
    source = np.array(documents["source"].to_pylist(), np.str_)
    positive = documents["positive"].to_numpy()
    return splits.balanced_weights(positive, source, config.source_weight_limit)


def whole(text: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    return pa.concat_arrays(text.chunks) if text.num_chunks else pa.array([], text.type)


def say(line: str) -> None:
    """Tell how far the training is, with the seconds since its start."""
    telling.say(f"{telling.elapsed():6.1f} s  {line}")


@command_line.main("classifier/train")
def main(config: DictConfig) -> None:
    """The command line."""
    command_line.run(train, config, again="nothing was written, run the same command again")
