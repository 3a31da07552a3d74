"""The typed settings of ``train.py``; defaults are in ``conf/classifier/train.yaml``."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from quality_classifier.kinds import KINDS
from quality_classifier.kinds.fasttext_model import FastTextSettings
from quality_classifier.kinds.fitting import METHODS
from winnow.defaults import HTML_EXTRACTOR, MAX_DOCUMENT_BYTES, PLAIN_TEXT, TEXT_DOCUMENT

RESERVED = frozenset({"label", "group", "worse"})
"""Columns of :mod:`quality_classifier.training.documents`: no metadata may have these names."""


@dataclass
class HashedLinearConfig:
    """Settings of ``kind=hashed_linear``."""

    log2_buckets: int = MISSING
    max_ngram: int = MISSING
    c: list[float] = MISSING


@dataclass
class GroupsConfig:
    """Settings of the card's audit."""

    by: list[str] = MISSING
    alpha: float = MISSING
    threshold: float = MISSING


@dataclass
class TrainConfig:
    """The settings; ``train.yaml`` has defaults and meaning. ValueError if a value is invalid."""

    positive: Any = None
    negative: Any = None
    labels: Any = None
    target: str | None = None
    pairs: Any = None
    output: str = MISSING
    kind: str = MISSING
    seed: int = MISSING
    grades: Any = None
    at_least: Any = MISSING
    group: str | None = None
    field: dict[str, str] = MISSING
    metadata: list[str] = MISSING
    list_separator: str | None = MISSING
    html_extractor: str = HTML_EXTRACTOR
    plain_text: bool = PLAIN_TEXT
    text_document: str = TEXT_DOCUMENT
    reader: list[str] = dataclasses.field(default_factory=list)
    max_document_bytes: int = MAX_DOCUMENT_BYTES
    calibration_share: float = MISSING
    test_share: float = MISSING
    source_weight_limit: float = MISSING
    calibration: str = MISSING
    hashed_linear: HashedLinearConfig = dataclasses.field(default_factory=HashedLinearConfig)
    fasttext: FastTextSettings = dataclasses.field(default_factory=FastTextSettings)
    alphas: list[float] = MISSING
    bootstrap: int = MISSING
    unseen_sources: int = MISSING
    audit: GroupsConfig = dataclasses.field(default_factory=GroupsConfig)

    def __post_init__(self) -> None:
        self._check_what_to_learn()
        for name, known in [("kind", KINDS), ("calibration", METHODS)]:
            if getattr(self, name) not in known:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(known)}"
                )
        shares = self.calibration_share, self.test_share
        if min(shares) <= 0 or sum(shares) >= 1:
            raise ValueError("calibration_share and test_share must be above 0, their sum below 1")
        for name, value, least in [
            ("seed", self.seed, 0),
            ("source_weight_limit", self.source_weight_limit, 1),
            ("bootstrap", self.bootstrap, 1),
            ("unseen_sources", self.unseen_sources, 0),
            ("min(alphas)", min(self.alphas, default=-1), 0),
        ]:
            if value < least:
                raise ValueError(f"{name} must be {least} or more, not {value}")
        if min(self.hashed_linear.c, default=0) <= 0:
            raise ValueError("hashed_linear.c needs at least one number, all above 0")

    def _check_what_to_learn(self) -> None:
        classes = self.positive is not None or self.negative is not None
        ways = [classes, self.labels is not None, self.pairs is not None]
        if sum(ways) != 1:
            given = "more than one way to learn is given" if any(ways) else "nothing to learn from"
            raise ValueError(
                f"{given}: give positive=GLOB and negative=GLOB, or labels=GLOB and target=FIELD,"
                " or pairs=GLOB"
            )
        if classes and (self.positive is None or self.negative is None):
            lacking = "positive" if self.positive is None else "negative"
            raise ValueError(f"{lacking} missing: give it as {lacking}=GLOB")
        if (self.labels is None) != (self.target is None):
            raise ValueError(
                "labels=GLOB and target=FIELD go together: target names the field of the labels"
            )
        if self.group and classes:
            raise ValueError("group=FIELD is for labels and pairs: leave it out")
        if self.grades is not None and not isinstance(self.grades, list):
            raise ValueError(f"grades is a list from worst to best, not {self.grades!r}")
        taken = sorted(RESERVED & set(self.metadata))
        if taken and not classes:
            raise ValueError(f"metadata can't have a field named {taken[0]!r}: rename it")


ConfigStore.instance().store(name="classifier_schema", node=TrainConfig)
