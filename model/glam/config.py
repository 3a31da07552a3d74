"""What a GLaM is: its sizes and every choice of architecture, checked, each with its source.

Tags say what a value rests on: **[paper]** the GLaM paper (Du et al. 2022, arXiv 2112.06905) as
more than one reader reports it; **[code]** Google's public GLaM code (praxis ``layers/glam.py``,
``gshard_utils.py``; lingvo ``core/gshard_layers.py``), which the paper's own runs may or may not
have followed; **[derived]** by arithmetic from the paper's published counts; **[ours]** our choice.

The class is also a Hydra structured config, registered as ``model/base``; every file in
``conf/model/`` starts from it, so a misspelt key or a wrong type is refused when it is read.
"""

from dataclasses import dataclass
from enum import StrEnum

from hydra.core.config_store import ConfigStore


class SecondExpert(StrEnum):
    """When a token's second expert is used, in training; in evaluation it always is."""

    all = "all"
    random = "random"


class ExpertActivation(StrEnum):
    """The function between an expert's two matrices."""

    relu = "relu"
    gelu = "gelu"


@dataclass
class GLaMConfig:
    """The shape and the choices of one model. Field by field, with source."""

    # Sizes. The defaults are the 0.1B row of the paper's table [paper].
    vocabulary: int = 32_000
    """V. The published counts fit 32,000 for every row but 64B/64E, which fits 256,000 [derived].
    The paper's text says 256K, SentencePiece."""
    layers: int = 12
    """L, attention and feed-forward pairs [paper]."""
    width: int = 768
    """M, of the residual stream [paper]."""
    hidden: int = 3072
    """H, of a dense feed-forward layer and of one expert alike [paper]; not reduced for the gate of
    the dense layers [derived]."""
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
    """Of :data:`model.glam.routing.ROUTERS`: GShard's top-2 gating [paper]."""
    second_expert: SecondExpert = SecondExpert.all
    """``all``: always used [code]. ``random``: with probability twice its normalised gate [GShard
    paper]. Which of the two the paper's runs used is not known."""
    capacity_factor: float | None = None
    """An expert takes at most factor * tokens / E of a group's choices in training; what is over is
    dropped and carried by the residual. None drops nothing [ours]. Public code has 2.0 [code],
    which is just the mean load of top-2; the paper's own value is not known. Evaluation never
    drops [ours], so that a document's likelihood does not depend on its neighbours."""
    group_rows: int | None = None
    """Rows of the batch that share capacity and one term of the balance loss; None: all rows of the
    call, that is of the data shard [code]. 1 makes both independent of how rows are spread over
    devices [ours]."""

    # Losses beside the cross-entropy.
    balance_coefficient: float = 0.01
    """Times E * sum_e f_e * P_e, which is 1 at balance, summed over MoE layers [code form; 0.01 is
    the paper's]. GShard's printed formula is smaller by E * E."""
    router_z_coefficient: float = 0.0
    """Times the mean squared logsumexp of the router's logits; 0.001 in ST-MoE. Not in GLaM."""
    output_z_coefficient: float = 0.0
    """Times the mean squared logsumexp of the output logits; 1e-4 in Google's GLaM code [code], not
    known of the paper's runs, hence off."""

    # Attention's relative bias, T5 form: a scalar for each head and bucket, one table per layer
    # [code]. The text cites Transformer-XL, whose extra key matrix the counts exclude [derived].
    bias_buckets: int = 32
    """Half of them for distances of their own, the other half spaced by their logarithm [code]."""
    bias_distance: int = 128
    """All distances from here on share the last bucket [code]."""

    norm_epsilon: float = 1e-6
    """Epsilon of RMSNorm, whose scale starts at 1 and which has no bias [code]."""

    def __post_init__(self) -> None:
        for name in ("vocabulary", "layers", "width", "hidden", "heads", "head_width"):
            require(getattr(self, name) >= 1, f"model.{name} must be at least 1")
        require(self.experts >= 0, "model.experts must be 0 (dense) or more")
        require(self.moe_period >= 1, "model.moe_period must be at least 1 (every layer is MoE)")
        for name in ("width", "hidden"):
            # A grouped product refuses rows that are no multiple of 16 bytes, in bfloat16 8 values.
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
            self.group_rows is None or self.group_rows >= 1,
            "model.group_rows must be at least 1 or null",
        )
        for name in ("balance_coefficient", "router_z_coefficient", "output_z_coefficient"):
            require(getattr(self, name) >= 0, f"model.{name} must not be negative")
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
        """Whether the model has MoE layers at all."""
        return self.experts > 1

    @property
    def moe_layers(self) -> list[int]:
        """Indices of the layers whose feed-forward part is a mixture of experts."""
        return list(range(0, self.layers, self.moe_period)) if self.sparse else []


def require(condition: bool, message: str) -> None:
    """Refuses a setting.

    Raises:
        ValueError: the condition does not hold.
    """
    if not condition:
        raise ValueError(message)


ConfigStore.instance().store(group="model", name="base", node=GLaMConfig)
