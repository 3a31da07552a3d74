"""Settings of one job of a sweep, for ``ablations/run.py`` and ``ablations/plan.py``.

They extend those of ``model/train.py`` (:class:`model.training.train_config.TrainConfig`) with the
study's. Defaults and their reasons: ``conf/ablation.yaml``.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from ablations.study_files.variant_choice import CompareAt
from ablations.tasks.data_sources import CACHE
from model.accelerators import ACCELERATORS
from model.training.train_config import DataConfig, TrainConfig


class DataRule(StrEnum):
    """How an arm selects documents of filtered sources (``arms.py``)."""

    stored = "stored"
    all = "all"
    pareto = "pareto"
    threshold = "threshold"
    random = "random"


@dataclass
class DataChoice(DataConfig):
    """An arm's text. ``name`` is its name in tables, ``arm`` its name in the corpus.

    A null ``threshold`` or ``rate`` is solved for the yield of ``pareto`` at ``alpha``. ``half``,
    ``shuffled`` and ``passes`` are controls (:mod:`model.data.controls`): ``passes`` limits the
    arm's text so that ``train.tokens`` are that many passes over it, ``pool_passes`` the pool.
    ``member`` is its mixture in a swarm (:mod:`ablations.study.design.swarm`).
    """

    name: str = MISSING
    rule: DataRule = MISSING
    alpha: float | None = None
    threshold: float | None = None
    rate: float | None = None
    half: int | None = None
    shuffled: float = 0.0
    passes: float | None = None
    pool_passes: float | None = None
    pool_shares: bool = True
    member: str | None = None


@dataclass
class PrimaryConfig:
    """The primary contrast; see :class:`ablations.study_files.results.Primary`."""

    endpoint: str | None = MISSING
    baseline: str = MISSING
    treatment: str = MISSING
    smallest_difference: float = MISSING
    alpha: float = MISSING
    power: float = MISSING
    control: str = ""


@dataclass
class CompareConfig:
    """Where arms are compared; see :class:`ablations.study_files.variant_choice.Compare`."""

    at: CompareAt = MISSING
    selection: float = MISSING


@dataclass
class SwarmConfig:
    """The mixtures of ``experiment=mixture``; see :mod:`ablations.study.design.swarm`."""

    runs: int = MISSING
    buckets: int = MISSING
    repeats: float = MISSING
    tokens: int | None = None
    seed: int = MISSING
    folder: str | None = None


@dataclass
class NoiseConfig:
    """The expected noise of a contrast, stated or measured in a pilot study."""

    seed_sd: float = MISSING
    item_error: float = MISSING
    pilot: str | None = None


@dataclass
class TasksConfig:
    """Evaluation tasks, run with each of ``shots``; see ``conf/evaluate.yaml``."""

    names: list[str] = field(default_factory=list)
    shots: list[Any] = field(default_factory=lambda: [0])
    limit: int | None = None
    local: str | None = None
    places: list[str] = field(default_factory=list)
    cache: str = CACHE


@dataclass
class HardwareConfig:
    """Hardware of one job. ``accelerator`` null: this machine, which the plan benchmarks."""

    accelerator: str | None = MISSING
    devices: int = MISSING
    mfu: float = MISSING
    watts: float = MISSING
    pue: float = MISSING
    co2e_kg_per_kwh: float | None = MISSING

    def __post_init__(self) -> None:
        if self.accelerator is not None and self.accelerator not in ACCELERATORS:
            known = ", ".join(ACCELERATORS)
            raise ValueError(f"hardware.accelerator={self.accelerator}: choose one of {known}")
        if self.devices < 1 or self.watts <= 0 or self.pue < 1 or not 0 < self.mfu <= 1:
            raise ValueError("hardware: devices >= 1, watts > 0, pue >= 1, mfu in (0, 1]")
        if self.co2e_kg_per_kwh is not None and self.co2e_kg_per_kwh < 0:
            raise ValueError("hardware.co2e_kg_per_kwh must be 0 or more")

    def published_seconds(self, flops: float) -> float | None:
        """Seconds for ``flops`` at the accelerator's published speed; None for this machine."""
        if self.accelerator is None:
            return None
        return flops / (self.devices * ACCELERATORS[self.accelerator].flops * self.mfu)

    def kwh(self, seconds: float) -> float:
        """Kilowatt hours of a job of ``seconds``, with the data center's overhead (PUE)."""
        return seconds * self.watts * self.pue / 3.6e6


@dataclass
class LadderConfig:
    """Models of each scale for studies that vary the model; see ``conf/scale``."""

    dense: str = MISSING
    sparse: str = MISSING
    base: str = MISSING
    experts: str = MISSING
    sizes: str = MISSING


@dataclass
class AblationConfig(TrainConfig):
    """One job of a study. ``output`` is the study's folder."""

    data: DataChoice = MISSING
    study: str = MISSING
    arm: str = MISSING
    variant: str = MISSING
    main: str = MISSING
    corpus: str = MISSING
    primary: PrimaryConfig = MISSING
    compare: CompareConfig = MISSING
    noise: NoiseConfig = MISSING
    swarm: SwarmConfig = MISSING
    secondary: list[str] | None = None
    unseen: list[str] = field(default_factory=list)
    allow_known_sources: bool = False
    heldout: dict[str, list[str]] = field(default_factory=dict)
    tasks: TasksConfig = MISSING
    hardware: HardwareConfig = MISSING
    ladder: LadderConfig = MISSING
    trunk: bool = False
    trunk_seed: int | None = None
    jobs_at_once: int = MISSING
    allow_underpowered: bool = False


ConfigStore.instance().store(name="ablation_schema", node=AblationConfig)
