"""GShard's top-2 gating, in float32: the experts of each token, and their weights.

GShard (Lepikhin et al. 2021, algorithm 1) as in lingvo's ``Top2GatingOnLogits`` and praxis's
``gshard_utils.py``. In a group of tokens: take the two most probable experts, divide both gates by
their sum *before* any drop, give slots to first choices in token order, then to second choices.
Choices without a slot are dropped; gates are not renormalised. As in the code, the balance loss is
E * sum_e f_e * P_e, with f the share of first choices and P the mean probability.

Shapes: T tokens, G groups, M width, E experts, C = 2 choices, R = C * T routed rows. Routed row
c * T + t is choice c of token t.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

CHOICES = 2


class RouterMetrics(NamedTuple):
    """Metrics of one layer's router: float32 tensors without gradient, not synchronised.

    ``load_E`` is each expert's share of first choices, ``entropy`` the mean entropy of a token's
    distribution in nats, ``dropped`` the share of choices that reach no expert, at random or not.
    """

    load_E: Tensor
    entropy: Tensor
    dropped: Tensor


class Routing(NamedTuple):
    """The routing of a batch: the dispatch order, and the weights of the results.

    ``expert_CT`` (int64) holds each token's choices, dropped or not. ``order_R`` lists routed rows
    by expert, choice and token; ``place_CT`` is its inverse. ``ends_E`` (int32) is the end of each
    expert's rows; rows from ``ends_E[-1]`` on are dropped. ``gates_CT`` is float32, with gradient,
    0 where dropped. ``may_drop`` says, without a host sync, whether rows can be dropped.
    """

    expert_CT: Tensor
    order_R: Tensor
    place_CT: Tensor
    ends_E: Tensor
    gates_CT: Tensor
    may_drop: bool
    balance_loss: Tensor
    z_loss: Tensor
    metrics: RouterMetrics


def route_top2(
    logits_TE: Tensor,
    *,
    groups: int = 1,
    capacity: int | None = None,
    uniforms_T: Tensor | None = None,
) -> Routing:
    """Top-2 routing of T tokens from float32 logits over E >= 2 experts.

    Capacity and balance apply within each of ``groups`` equal runs of tokens. ``capacity`` is an
    expert's slots per group; None drops nothing. With ``uniforms_T``, draws from [0, 1), a second
    choice is used iff its draw is below twice its normalised gate (GShard's random dispatch).
    """
    T, E = logits_TE.shape
    probability_TE = logits_TE.softmax(-1)
    # argmax rather than topk: ties go to the lowest index, as in the reference.
    with torch.no_grad():
        first_T = probability_TE.argmax(-1)
        second_T = probability_TE.scatter(-1, first_T[:, None], -1.0).argmax(-1)
        expert_CT = torch.stack([first_T, second_T])
    gates_CT = probability_TE.gather(-1, expert_CT.T).T
    gates_CT = gates_CT / gates_CT.sum(0)

    with torch.no_grad():
        key_CT = expert_CT
        may_drop = uniforms_T is not None or capacity is not None
        if uniforms_T is not None:
            unused_T = uniforms_T >= 2 * gates_CT[1]
            key_CT = torch.stack([first_T, second_T.masked_fill(unused_T, E)])
        if capacity is not None:
            key_CT = key_CT.masked_fill(_slots(key_CT, groups, E) >= capacity, E)
        order_R = key_CT.flatten().argsort(stable=True)
        place_R = torch.empty_like(order_R)
        place_R[order_R] = torch.arange(CHOICES * T, device=order_R.device)
        # Key E counts dropped rows.
        ends_E = _count(key_CT.flatten(), E + 1)[:E].cumsum(0).to(torch.int32)
        load_GE = _count(_grouped(first_T, groups, E), groups * E).view(groups, E) * (groups / T)
    if may_drop:
        gates_CT = gates_CT.masked_fill(key_CT == E, 0.0)

    mean_GE = probability_TE.view(groups, T // groups, E).mean(1)
    with torch.no_grad():
        metrics = RouterMetrics(
            load_E=load_GE.mean(0),
            entropy=torch.special.entr(probability_TE).sum(-1).mean(),
            dropped=1 - ends_E[-1] / (CHOICES * T),
        )
    return Routing(
        expert_CT=expert_CT,
        order_R=order_R,
        place_CT=place_R.view(CHOICES, T),
        ends_E=ends_E,
        gates_CT=gates_CT,
        may_drop=may_drop,
        balance_loss=E * (load_GE * mean_GE).sum(-1).mean(),
        z_loss=logits_TE.logsumexp(-1).square().mean(),
        metrics=metrics,
    )


class Router(NamedTuple):
    """A routing function with the signature of :func:`route_top2`, and its choices per token."""

    route: Callable[..., Routing]
    choices: int


ROUTERS: dict[str, Router] = {"top2": Router(route_top2, CHOICES)}
"""The values of ``model.router``."""


def group_capacity(tokens: int, experts: int, factor: float) -> int:
    """Slots of an expert per group: tokens * factor / E, rounded up to a multiple of 4 (lingvo)."""
    return max(4, math.ceil(int(tokens * factor / experts) / 4) * 4)


def _slots(key_CT: Tensor, groups: int, experts: int) -> Tensor:
    """The number of rows of the same group and expert before each row: int64 [C, T].

    First choices of a group come before second ones, each in token order.
    """
    key_R = torch.stack([_grouped(key_T, groups, experts + 1) for key_T in key_CT]).flatten()
    order_R = key_R.argsort(stable=True)
    count = _count(key_R, groups * (experts + 1))
    start = count.cumsum(0) - count
    slot_R = torch.empty_like(order_R)
    slot_R[order_R] = torch.arange(len(order_R), device=order_R.device) - start[key_R[order_R]]
    return slot_R.view_as(key_CT)


def _grouped(key_T: Tensor, groups: int, keys: int) -> Tensor:
    """The keys of T tokens, offset by g * keys in group g."""
    offset_G1 = torch.arange(groups, device=key_T.device)[:, None] * keys
    return (key_T.view(groups, -1) + offset_G1).flatten()


def _count(key: Tensor, keys: int) -> Tensor:
    """Count each of 0 .. keys - 1. Integer sums are deterministic."""
    zeros = torch.zeros(keys, dtype=torch.int64, device=key.device)
    return zeros.scatter_add_(0, key, torch.ones_like(key))
