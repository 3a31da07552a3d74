"""Top-2 routing against GShard's algorithm 1, written out token by token in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.glam.routing import CHOICES, group_capacity, route_top2


def gshard(logits, groups, capacity, uniforms):
    """Algorithm 1 of GShard, group by group. Gates 0 where dropped; slots -1 where dropped.

    Returns chosen experts, gates and slots, each [choice, token], and the balance loss.
    """
    T, E = logits.shape
    S = T // groups
    chosen = np.zeros((2, T), int)
    gates = np.zeros((2, T))
    slots = np.full((2, T), -1)
    losses = []
    for group in range(groups):
        tokens = range(group * S, (group + 1) * S)
        taken = [0] * E
        named_first = [0] * E
        mean = np.zeros(E)
        normalised = {}
        for t in tokens:
            exponential = np.exp(logits[t] - logits[t].max())
            g = exponential / exponential.sum()
            mean += g / S
            e1, e2 = np.lexsort((np.arange(E), -g))[:2]
            chosen[:, t] = e1, e2
            normalised[t] = g[e1] / (g[e1] + g[e2]), g[e2] / (g[e1] + g[e2])
            if taken[e1] < capacity:
                gates[0, t] = normalised[t][0]
                slots[0, t] = taken[e1]
                taken[e1] += 1
            named_first[e1] += 1
        losses.append(E * sum(named_first[e] / S * mean[e] for e in range(E)))
        for t in tokens:
            e2 = chosen[1, t]
            if uniforms is not None and not uniforms[t] < 2 * normalised[t][1]:
                continue
            if taken[e2] < capacity:
                gates[1, t] = normalised[t][1]
                slots[1, t] = taken[e2]
                taken[e2] += 1
    return chosen, gates, slots, float(np.mean(losses))


@st.composite
def problems(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    tokens = groups * draw(st.sampled_from([1, 2, 7, 32]))
    experts = draw(st.sampled_from([2, 3, 8, 50]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # One direction shared by all tokens makes some experts crowded.
    logits = rng.normal(size=(tokens, experts)) + draw(st.sampled_from([0, 3])) * rng.normal(
        size=experts
    )
    capacity = draw(st.sampled_from([None, 1, 3, 10_000]))
    uniforms = rng.random(tokens) if draw(st.booleans()) else None
    return logits.astype(np.float32), groups, capacity, uniforms


def run(logits, groups, capacity, uniforms):
    return route_top2(
        torch.from_numpy(logits),
        groups=groups,
        capacity=capacity,
        uniforms_T=None if uniforms is None else torch.from_numpy(uniforms),
    )


@given(problems())
@settings(max_examples=80, deadline=None)
def test_experts_gates_drops_and_loss_are_those_of_gshard(problem):
    logits, groups, capacity, uniforms = problem
    T, E = logits.shape
    chosen, gates, slots, loss = gshard(
        logits.astype(np.float64), groups, np.inf if capacity is None else capacity, uniforms
    )
    routing = run(*problem)
    np.testing.assert_array_equal(routing.expert_CT, chosen)
    np.testing.assert_allclose(routing.gates_CT, gates, atol=2e-6)
    np.testing.assert_allclose(float(routing.balance_loss), loss, rtol=1e-5)
    lse = np.log(np.exp(logits.astype(np.float64)).sum(1))
    np.testing.assert_allclose(float(routing.z_loss), np.mean(lse**2), rtol=1e-4, atol=1e-6)

    # The order of dispatch: each expert's rows lie between its neighbours' ends, dropped ones last.
    kept = slots >= 0
    starts = np.concatenate([[0], routing.ends_E.numpy()])
    np.testing.assert_array_equal(np.diff(starts), [(kept & (chosen == e)).sum() for e in range(E)])
    order = routing.order_R.numpy()
    np.testing.assert_array_equal(order[routing.place_CT.numpy().ravel()], np.arange(CHOICES * T))
    for e in range(E):
        rows = order[starts[e] : starts[e + 1]]
        assert (np.diff(rows) > 0).all()
        assert (chosen.ravel()[rows] == e).all()
    assert not kept.ravel()[order[starts[-1] :]].any()
    if groups == 1:  # then slots are places
        place = np.where(kept, starts[chosen] + slots, -1)
        np.testing.assert_array_equal(routing.place_CT.numpy()[kept], place[kept])
    if not routing.may_drop:
        assert kept.all()

    metrics = routing.metrics
    np.testing.assert_allclose(metrics.load_E, np.bincount(chosen[0], minlength=E) / T, rtol=1e-5)
    np.testing.assert_allclose(float(metrics.dropped), 1 - kept.mean(), atol=1e-6)
    p = np.exp(logits.astype(np.float64) - lse[:, None])
    np.testing.assert_allclose(
        float(metrics.entropy), -(p * np.log(p)).sum(1).mean(), rtol=1e-4, atol=1e-6
    )


def test_first_choices_go_before_all_second_choices():
    # Token 0 names expert 1 second; token 2 names it first and still has priority.
    logits = np.log(np.array([[0.6, 0.3, 0.1], [0.6, 0.1, 0.3], [0.3, 0.6, 0.1]], np.float32))
    routing = run(logits, 1, 1, None)
    gates = routing.gates_CT.numpy()
    np.testing.assert_allclose(gates[:, 0], [2 / 3, 0], rtol=1e-6)  # not divided anew
    np.testing.assert_allclose(gates[:, 1], [0, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(gates[:, 2], [2 / 3, 0], rtol=1e-6)


def test_ties_go_to_the_lower_expert():
    routing = run(np.zeros((4, 5), np.float32), 1, None, None)
    assert routing.ends_E.tolist() == [4, 8, 8, 8, 8]


def test_balance_loss_is_one_at_balance_and_e_at_collapse():
    balanced = 20 * np.eye(8, dtype=np.float32)
    assert float(run(balanced, 1, None, None).balance_loss) == pytest.approx(1, rel=1e-6)
    collapsed = np.tile(balanced[:1], (8, 1))
    assert float(run(collapsed, 1, None, None).balance_loss) == pytest.approx(8, rel=1e-4)


@pytest.mark.parametrize("groups", [1, 3])
def test_gradients_of_gates_and_losses_are_numerical_ones(groups):
    # Far from ties, so that a small step changes no choice.
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(np.argsort(rng.random((12, 5)), 1) * 0.4).requires_grad_()
    uniforms = torch.from_numpy(rng.random(12))

    def parts(x):
        routing = route_top2(x, groups=groups, capacity=3, uniforms_T=uniforms)
        return routing.gates_CT, routing.balance_loss, routing.z_loss

    assert 0 < float(route_top2(logits, capacity=3, uniforms_T=uniforms).metrics.dropped) < 1
    assert torch.autograd.gradcheck(parts, logits, eps=1e-5, atol=1e-6)


def test_the_balance_gradient_reaches_the_router_only_through_the_mean_probability():
    logits = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    routing = route_top2(logits)
    (found,) = torch.autograd.grad(routing.balance_loss, logits)
    f = torch.bincount(logits.argmax(1), minlength=4) / 16
    p = logits.softmax(1).detach()
    expected = 4 / 16 * p * (f - (p * f).sum(1, keepdim=True))
    torch.testing.assert_close(found, expected)


def test_random_second_experts_are_used_twice_their_gate():
    tokens = 40_000
    logits = torch.tensor([0.0, -1.0, -9.0]).expand(tokens, 3)
    uniforms = torch.rand(tokens, generator=torch.Generator().manual_seed(1))
    routing = route_top2(logits, uniforms_T=uniforms)
    gate = float(torch.tensor([0.0, -1.0]).softmax(0)[1])
    used = float((routing.gates_CT[1] > 0).float().mean())
    assert used == pytest.approx(2 * gate, abs=5 * (0.25 / tokens) ** 0.5)


@pytest.mark.parametrize(
    ("tokens", "experts", "factor", "slots"),
    [(1024, 64, 2.0, 32), (1024, 64, 1.25, 20), (100, 64, 2.0, 4), (1000, 8, 1.0, 128)],
)
def test_capacity_is_rounded_up_to_a_multiple_of_four(tokens, experts, factor, slots):
    assert group_capacity(tokens, experts, factor) == slots
