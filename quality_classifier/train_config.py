"""What ``train.py`` is told, with types; every default is in ``conf/classifier/train.yaml``."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from quality_classifier.kinds import KINDS
from quality_classifier.kinds.fasttext_model import FastTextSettings
from quality_classifier.kinds.fitting import METHODS
from winnow.defaults import HTML_EXTRACTOR, MAX_DOCUMENT_BYTES, PLAIN_TEXT, TEXT_DOCUMENT


@dataclass
class HashedLinearConfig:
    """Settings of ``kind=hashed_linear``."""

    log2_buckets: int = MISSING
    max_ngram: int = MISSING
    c: list[float] = MISSING


@dataclass
class GroupsConfig:
    """What the card's audit compares."""

    by: list[str] = MISSING
    alpha: float = MISSING
    threshold: float = MISSING


@dataclass
class TrainConfig:
    """What the command line is told; defaults and their meaning are in ``train.yaml``.

    How pages are read is the pipeline's to say, since it must be the same when scoring.

    Raises:
        ValueError: a value is out of range.
    """

    positive: Any = MISSING
    negative: Any = MISSING
    output: str = MISSING
    kind: str = MISSING
    seed: int = MISSING
    field: dict[str, str] = MISSING
    metadata: list[str] = MISSING
    list_separator: str | None = MISSING
    html_extractor: str = HTML_EXTRACTOR
    plain_text: bool = PLAIN_TEXT
    text_document: str = TEXT_DOCUMENT
    max_document_bytes: int = MAX_DOCUMENT_BYTES
    calibration_share: float = MISSING
    test_share: float = MISSING
    source_weight_limit: float = MISSING
    calibration: str = MISSING
    hashed_linear: HashedLinearConfig = dataclasses.field(default_factory=HashedLinearConfig)
    fasttext: FastTextSettings = dataclasses.field(default_factory=FastTextSettings)
    alphas: list[float] = MISSING
    bootstrap: int = MISSING
    unseen_sources: bool = MISSING
    audit: GroupsConfig = dataclasses.field(default_factory=GroupsConfig)

    def __post_init__(self) -> None:
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
            ("min(alphas)", min(self.alphas, default=-1), 0),
        ]:
            if value < least:
                raise ValueError(f"{name} must be {least} or more, not {value}")
        if min(self.hashed_linear.c, default=0) <= 0:
            raise ValueError("hashed_linear.c needs at least one number, all above 0")
        if self.unseen_sources and self.kind != "hashed_linear":
            raise ValueError("unseen_sources=true is for kind=hashed_linear only")


ConfigStore.instance().store(name="classifier_schema", node=TrainConfig)
