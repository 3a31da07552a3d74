"""GLaM (Du et al. 2022): a decoder-only language model whose every other layer is sparse.

Layers are pre-norm: attention, then a feed-forward part, each on the RMSNorm of the residual
stream. In the first layer of every pair the latter is a mixture of experts, in the second a dense
GEGLU. There are no biases. The embedding is tied: logits are ``M ** -0.5 * hidden @ embedding.T``.
:mod:`model.glam.config` gives the source of each choice.

Suffixes of tensors name their shape:
    B rows    S positions    K keys (cached and new)    T = B * S tokens    M width    H hidden
    N heads   D head width   U bias buckets   E experts   C choices (2)   R = C * T routed rows
    V vocabulary   L MoE layers
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.glam.attention import Cache, Mask, attend, attention_mask, bias_of_distance
from model.glam.config import AttentionBackend, GLaMConfig, SecondExpert, require
from model.glam.experts import ACTIVATIONS, BACKENDS, ExpertInputs, combine, dispatch
from model.glam.loss import vocabulary_loss
from model.glam.parameter import Weight
from model.glam.routing import ROUTERS, RouterMetrics, Routing, group_capacity
from model.ops import cpu_kernels


class Losses(NamedTuple):
    """The losses of a batch: float32 tensors, not synchronised with the host.

    ``total``, the objective, is the one to call ``backward`` on. ``balance`` and ``router_z`` are
    sums over MoE layers, before their coefficients. ``routers`` stacks the MoE layers' metrics:
    ``load_E`` is [L, E], ``entropy`` and ``dropped`` [L]; None for a dense model.
    """

    total: Tensor
    cross_entropy: Tensor
    output_z: Tensor
    balance: Tensor
    router_z: Tensor
    routers: RouterMetrics | None


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * scale (Zhang & Sennrich 2019), with float32 sums."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.scale = Weight(width, constant=1.0, decay=False)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension, in the input's dtype."""
        scale_M = self.scale(torch.float32)
        if cpu_kernels.can_read(x):
            return cpu_kernels.rms_norm(x, scale_M, self.epsilon)
        return F.rms_norm(x.float(), scale_M.shape, scale_M, self.epsilon).to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with this layer's relative bias."""

    def __init__(self, config: GLaMConfig) -> None:
        super().__init__()
        M, N, D = config.width, config.heads, config.head_width
        # The query's D ** -0.5 replaces the usual division of the logits.
        self.query = Weight(M, N * D, std=(M * D) ** -0.5)
        self.key = Weight(M, N * D, std=M**-0.5)
        self.value = Weight(M, N * D, std=M**-0.5)
        self.output = Weight(N * D, M, std=(N * D) ** -0.5)
        U = config.bias_buckets
        self.bias = Weight(N, U, std=(N * U) ** -0.5, decay=False)
        self.head_width = D
        self.far = config.bias_distance

    def forward(self, x_BSM: Tensor, mask: Mask, layer: int, cache: Cache | None) -> Tensor:
        """[B, S, M] to the same; the mask's type selects the implementation."""
        dtype = x_BSM.dtype
        q, k, v = (
            (x_BSM @ weight(dtype)).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for weight in (self.query, self.key, self.value)
        )
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        bias_NK = bias_of_distance(self.bias(torch.float32), k.shape[2], self.far)
        y_BNSD = attend(q, k, v, bias_NK, mask)
        return y_BNSD.transpose(1, 2).flatten(2) @ self.output(dtype)


class Router(nn.Module):
    """Routes hidden states, in float32 whatever their dtype."""

    def __init__(self, config: GLaMConfig) -> None:
        super().__init__()
        self.linear = Weight(config.width, config.experts, fan_in=config.width)
        self.config = config
        require(
            config.router in ROUTERS,
            f"there is no model.router={config.router}: choose one of {', '.join(ROUTERS)}",
        )
        self.route = ROUTERS[config.router].route

    def forward(self, x_BSM: Tensor, uniforms_T: Tensor | None) -> Routing:
        """Route T = B * S tokens. Evaluation drops nothing."""
        B, S, M = x_BSM.shape
        logits_TE = x_BSM.reshape(-1, M).float() @ self.linear(torch.float32)
        rows = self.config.group_rows or B
        if B % rows:
            raise ValueError(
                f"a batch of {B} rows can't be split into groups of model.group_rows={rows}: make"
                " one a multiple of the other"
            )
        capacity = None
        if self.training and self.config.capacity_factor is not None:
            factor = self.config.capacity_factor
            capacity = group_capacity(rows * S, self.config.experts, factor)
        uniforms_T = uniforms_T if self.training else None
        return self.route(logits_TE, groups=B // rows, capacity=capacity, uniforms_T=uniforms_T)


class Experts(nn.Module):
    """The stacked weights of the experts, and their backend."""

    def __init__(self, config: GLaMConfig, backend: str) -> None:
        super().__init__()
        E, M, H = config.experts, config.width, config.hidden
        self.w_in = Weight(E, M, H, fan_in=M)
        self.w_out = Weight(E, H, M, fan_in=H)
        self.activation = ACTIVATIONS[config.expert_activation]
        self.compute = BACKENDS[backend]

    def forward(self, x_RM: Tensor, ends_E: Tensor, may_drop: bool) -> Tensor:
        """Rows sorted by expert to the same; see :mod:`model.glam.experts`."""
        # The CPU backend casts the weights itself, one expert at a time.
        w_in_EMH, w_out_EHM = (
            w.weight if x_RM.is_cpu else w(x_RM.dtype) for w in (self.w_in, self.w_out)
        )
        return self.compute(
            ExpertInputs(x_RM, ends_E, w_in_EMH, w_out_EHM, self.activation, may_drop)
        )


class MoEFeedForward(nn.Module):
    """A router and its experts."""

    def __init__(self, config: GLaMConfig, backend: str) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = Experts(config, backend)

    def forward(self, x_BSM: Tensor, uniforms_T: Tensor | None) -> tuple[Tensor, Routing]:
        """[B, S, M] to the same, with zeros for dropped tokens."""
        routing = self.router(x_BSM, uniforms_T)
        x_RM = dispatch(x_BSM.flatten(0, 1), routing.order_R, routing.place_CT)
        y_RM = self.experts(x_RM, routing.ends_E, routing.may_drop)
        y_TM = combine(y_RM, routing.gates_CT, routing.order_R, routing.place_CT)
        return y_TM.view_as(x_BSM), routing


class DenseFeedForward(nn.Module):
    """GEGLU (Shazeer 2020) with the approximate GELU: down(gelu(gate(x)) * up(x))."""

    def __init__(self, config: GLaMConfig) -> None:
        super().__init__()
        M, H = config.width, config.hidden
        self.gate = Weight(M, H, fan_in=M)
        self.up = Weight(M, H, fan_in=M)
        self.down = Weight(H, M, fan_in=H)

    def forward(self, x_BSM: Tensor) -> Tensor:
        dtype = x_BSM.dtype
        return geglu(x_BSM @ self.gate(dtype), x_BSM @ self.up(dtype)) @ self.down(dtype)


def geglu(gate: Tensor, up: Tensor) -> Tensor:
    if cpu_kernels.can_read(gate):
        return cpu_kernels.geglu(gate, up)
    return F.gelu(gate, approximate="tanh") * up


class Layer(nn.Module):
    """One attention and one feed-forward part, each added to the residual stream."""

    def __init__(self, config: GLaMConfig, index: int, backend: str) -> None:
        super().__init__()
        self.index = index
        self.attention_norm = RMSNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.width, config.norm_epsilon)
        sparse = index in config.moe_layers
        self.feed_forward: MoEFeedForward | DenseFeedForward = (
            MoEFeedForward(config, backend) if sparse else DenseFeedForward(config)
        )

    def forward(
        self, x_BSM: Tensor, mask: Mask, uniforms_T: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Routing | None]:
        """The residual stream after this layer, and its routing if it is sparse."""
        x_BSM = x_BSM + self.attention(self.attention_norm(x_BSM), mask, self.index, cache)
        normed_BSM = self.feed_forward_norm(x_BSM)
        if isinstance(self.feed_forward, MoEFeedForward):
            y_BSM, routing = self.feed_forward(normed_BSM, uniforms_T)
            return x_BSM + y_BSM, routing
        return x_BSM + self.feed_forward(normed_BSM), None


class GLaM(nn.Module):
    """The model. Weights are float32 and initialised from ``seed``, unless made on ``meta``.

    Args:
        config: shape and architecture.
        compute_dtype: of activations and products, float32 or bfloat16. The router, sums inside
            norms and the vocabulary's softmax stay float32. Casts are explicit, since autocast does
            not cover grouped products.
        expert_backend: a key of :data:`model.glam.experts.BACKENDS`.
        attention: the implementation of attention.
        recompute: activation checkpointing of each layer: less memory, a third more work.
        seed: seeds a generator per tensor, keyed by its name, so that models share the weights that
            they have in common, such as a dense model and its sparse twin.
    """

    def __init__(
        self,
        config: GLaMConfig,
        *,
        compute_dtype: torch.dtype = torch.float32,
        expert_backend: str = "fastest",
        attention: AttentionBackend = AttentionBackend.plain,
        recompute: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        self.mask: Callable[..., Mask] = functools.partial(
            attention_mask, dtype=compute_dtype, far=config.bias_distance, backend=attention
        )
        self.recompute = recompute
        self.embedding = Weight(config.vocabulary, config.width, std=1.0)
        self.layers = nn.ModuleList(Layer(config, i, expert_backend) for i in range(config.layers))
        self.final_norm = RMSNorm(config.width, config.norm_epsilon)
        self.initialise(seed)

    def initialise(self, seed: int) -> None:
        """Draw all weights that are not on ``meta``, with the same values on every device."""
        for name, module in self.named_modules():
            if isinstance(module, Weight) and not module.weight.is_meta:
                module.initialise(seed, name)

    def forward(
        self, tokens_BS: Tensor, segments_BS: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Float32 next-token logits [B, S, V]; see :meth:`hidden`."""
        hidden_BSM, _ = self.hidden(tokens_BS, segments_BS, cache)
        return self.logits(hidden_BSM)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 next-token logits [..., V] from hidden states [..., M]."""
        return (hidden @ self.embedding(hidden.dtype).T).float() * self.logit_scale

    def hidden(
        self,
        tokens_BS: Tensor,
        segments_BS: Tensor | None = None,
        cache: Cache | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, list[Routing]]:
        """The residual stream after the last norm, [B, S, M], and the routing of each MoE layer.

        ``tokens_BS`` is int64. ``segments_BS`` (int32) numbers each row's documents, to which
        attention is confined; None: each row is one document. ``cache`` holds earlier positions
        and is extended. ``generator`` draws second experts in training with the ``random`` policy.
        Raises ValueError for a token outside the vocabulary (on a CPU, where the check is free).
        """
        if tokens_BS.device.type == "cpu" and tokens_BS.numel():
            low, high = (int(x) for x in tokens_BS.aminmax())
            if low < 0 or high >= self.config.vocabulary:
                raise ValueError(
                    f"token {low if low < 0 else high} is outside the model's vocabulary of"
                    f" {self.config.vocabulary}: set model.vocabulary to the tokenizer's size"
                )
        if segments_BS is None:
            segments_BS = torch.zeros_like(tokens_BS, dtype=torch.int32)
        segments_BK = cache.extend_segments(segments_BS) if cache else segments_BS
        mask = self.mask(segments_BS, segments_BK)
        x_BSM = F.embedding(tokens_BS, self.embedding(torch.float32)).to(self.compute_dtype)
        # Draw before the layers, so that a recomputed layer routes as before.
        uniforms_LT: Tensor | list[None] = [None] * self.config.layers
        if self.training and self.config.second_expert == SecondExpert.random:
            uniforms_LT = torch.rand(
                self.config.layers, tokens_BS.numel(), generator=generator, device=x_BSM.device
            )
        routings = []
        for layer, uniforms_T in zip(self.layers, uniforms_LT, strict=True):
            if self.recompute and torch.is_grad_enabled():
                x_BSM, routing = checkpoint(
                    layer, x_BSM, mask, uniforms_T, cache, use_reentrant=False
                )
            else:
                x_BSM, routing = layer(x_BSM, mask, uniforms_T, cache)
            if routing is not None:
                routings.append(routing)
        return self.final_norm(x_BSM), routings

    def loss(
        self,
        tokens_BS: Tensor,
        targets_BS: Tensor,
        segments_BS: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Losses:
        """The training objective and its parts; arguments as in :meth:`hidden`.

        ``targets_BS`` (int64) are next tokens, or :data:`model.glam.loss.IGNORE`. Sums over tokens
        are divided by B * S, padding included, as in Google's code; so the loss of a step is the
        mean over its micro-batches of equal size.
        """
        hidden_BSM, routings = self.hidden(tokens_BS, segments_BS, None, generator)
        vocabulary = vocabulary_loss(
            hidden_BSM.flatten(0, 1),
            self.embedding(torch.float32),
            targets_BS.flatten(),
            scale=self.logit_scale,
            denominator=tokens_BS.numel(),
            z_coefficient=self.config.output_z_coefficient,
        )
        zero = hidden_BSM.new_zeros((), dtype=torch.float32)
        balance = sum((routing.balance_loss for routing in routings), zero)
        router_z = sum((routing.z_loss for routing in routings), zero)
        total = vocabulary.objective + self.config.balance_coefficient * balance
        total = total + self.config.router_z_coefficient * router_z
        metrics = zip(*(routing.metrics for routing in routings), strict=True)
        return Losses(
            total=total,
            cross_entropy=vocabulary.cross_entropy,
            output_z=vocabulary.z_loss,
            balance=balance.detach(),
            router_z=router_z.detach(),
            routers=RouterMetrics(*map(torch.stack, metrics)) if routings else None,
        )

    @property
    def logit_scale(self) -> float:
        """M ** -0.5, as the embedding has a standard deviation of 1."""
        return self.config.width**-0.5
