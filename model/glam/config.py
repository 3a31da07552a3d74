"""The sizes and architectural choices of a GLaM, validated, each with its source.

Sources: **[paper]** the GLaM paper (Du et al. 2022, arXiv 2112.06905) as more than one reader
reports it; **[code]** Google's public GLaM code (praxis ``layers/glam.py``, ``gshard_utils.py``;
lingvo ``core/gshard_layers.py``), which the paper's runs may not have followed; **[derived]** by
arithmetic from the paper's published counts; **[ours]** our choice.

Every file in ``conf/model/`` starts from this Hydra structured config, registered as
``model/base``, which rejects misspelt keys and wrong types.
"""

from dataclasses import dataclass
from enum import StrEnum

from hydra.core.config_store import ConfigStore


class SecondExpert(StrEnum):
    """When training uses a token's second expert; evaluation always does."""

    all = "all"
    random = "random"


class AttentionBackend(StrEnum):
    """The implementation of attention, independent of the model.

    ``plain`` is torch operations, on a CPU with our softmax kernel. The others are for CUDA:
    ``flex`` is FlexAttention, ``triton`` is :mod:`model.ops.triton_attention`.
    """

    plain = "plain"
    flex = "flex"
    triton = "triton"


class ExpertActivation(StrEnum):
    """The activation between an expert's two matrices."""

    relu = "relu"
    gelu = "gelu"


@dataclass
class GLaMConfig:
    """The shape and architecture of a model."""

    # Sizes. The defaults are the 0.1B row of the paper's table [paper].
    vocabulary: int = 32_000
    """V. The published counts fit 32,000 for every row but 64B/64E, which fits 256,000 [derived].
    The paper's text says 256K, SentencePiece."""
    layers: int = 12
    """L, attention and feed-forward pairs [paper]."""
    width: int = 768
    """M, of the residual stream [paper]."""
    hidden: int = 3072
    """H, of dense feed-forward layers and experts alike [paper], not reduced for the dense layers'
    gate [derived]."""
    heads: int = 12
    """N [paper]."""
    head_width: int = 64
    """D [paper]. ``heads * head_width`` need not be the width: 64B/64E has twice that [derived]."""

    # Mixture of experts.
    experts: int = 0
    """E per MoE layer; 0 and 1 both mean a dense model, as the paper's count of 1 does."""
    moe_period: int = 2
    """Every second feed-forward layer is MoE [paper], the first of each pair [code]."""
    expert_activation: ExpertActivation = ExpertActivation.relu
    """Experts are two plain matrices [derived: gated ones miss the published counts by 18 to 22 %]
    with ReLU between them [code default; the paper names no activation for its experts]."""
    router: str = "top2"
    """A name in :data:`model.glam.routing.ROUTERS`; top-2 is GShard's gating [paper]."""
    second_expert: SecondExpert = SecondExpert.all
    """``all``: always used [code]. ``random``: with probability twice its normalised gate [GShard
    paper]. Which one the paper's runs used is unknown."""
    capacity_factor: float | None = None
    """In training an expert takes at most factor * tokens / E choices of a group and drops the
    rest, which pass through the residual only. None drops nothing [ours]; 2.0, the mean load of
    top-2, is the public code's [code]; the paper's is unknown. Evaluation never drops [ours], so a
    document's likelihood does not depend on its neighbours."""
    group_rows: int | None = None
    """Rows that share capacity and one term of the balance loss; None: all rows of the call, that
    is of the data shard [code]. 1 makes both independent of the number of devices [ours]."""

    # Losses besides the cross-entropy.
    balance_coefficient: float = 0.01
    """Times E * sum_e f_e * P_e, which is 1 at balance, summed over MoE layers [code form; 0.01 is
    the paper's]. GShard's printed formula is smaller by E * E."""
    router_z_coefficient: float = 0.0
    """Times the mean squared logsumexp of the router's logits; 0.001 in ST-MoE. Not in GLaM."""
    output_z_coefficient: float = 0.0
    """Times the mean squared logsumexp of the output logits; 1e-4 in Google's GLaM code [code];
    unknown for the paper's runs, hence off."""

    # Attention's relative bias as in T5: a scalar per head and bucket, one table per layer [code].
    # The paper cites Transformer-XL, whose extra key matrix the counts exclude [derived].
    bias_buckets: int = 32
    """Half of them hold one distance each, the other half are spaced logarithmically [code]."""
    bias_distance: int = 128
    """All larger distances share the last bucket [code]."""

    norm_epsilon: float = 1e-6
    """Epsilon of RMSNorm, which has no bias and a scale that starts at 1 [code]."""

    def __post_init__(self) -> None:
        shape = ("vocabulary", "layers", "width", "hidden", "heads", "head_width")
        at_least(1, "model", self, *shape, "moe_period", "group_rows")
        losses = ("balance_coefficient", "router_z_coefficient", "output_z_coefficient")
        at_least(0, "model", self, "experts", *losses)
        for name in ("width", "hidden"):
            # Grouped products need rows of a multiple of 16 bytes: 8 bfloat16 values.
            require(
                getattr(self, name) % 8 == 0,
                f"model.{name}={getattr(self, name)} must be a multiple of 8 for grouped products"
                " in bfloat16; multiples of 64 are fastest",
            )
        require(
            self.heads * self.head_width in (self.width, 2 * self.width),
            f"model.heads * model.head_width = {self.heads} * {self.head_width} = "
            f"{self.heads * self.head_width} must be the width, {self.width}, or twice it as in"
            " 64B/64E: change one of the three",
        )
        require(
            self.capacity_factor is None or self.capacity_factor >= 1,
            f"model.capacity_factor={self.capacity_factor} leaves fewer slots than tokens: use at"
            " least 1 (2 is the mean load of two experts a token), or null to drop nothing",
        )
        require(
            self.bias_buckets >= 2 and self.bias_buckets % 2 == 0,
            "model.bias_buckets must be even, >= 2",
        )
        require(
            self.bias_distance > self.bias_buckets // 2,
            f"model.bias_distance={self.bias_distance} must exceed half the buckets, "
            f"{self.bias_buckets // 2}: nearer distances have a bucket each",
        )
        require(self.norm_epsilon > 0, "model.norm_epsilon must be positive")

    @property
    def sparse(self) -> bool:
        """Whether the model has MoE layers."""
        return self.experts > 1

    @property
    def moe_layers(self) -> list[int]:
        """Indices of the layers whose feed-forward part is a mixture of experts."""
        return list(range(0, self.layers, self.moe_period)) if self.sparse else []


def require(condition: bool, message: str) -> None:
    """Raise ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def at_least(least: float, group: str, settings: object, *names: str) -> None:
    """Raise ValueError unless each of these settings is at least ``least``, or None."""
    for name in names:
        value = getattr(settings, name)
        require(value is None or value >= least, f"{group}.{name} must be at least {least}")


ConfigStore.instance().store(group="model", name="base", node=GLaMConfig)
