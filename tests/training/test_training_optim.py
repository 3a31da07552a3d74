"""Adafactor against the paper's algorithms in numpy, schedules, and what steps leave alone."""

import dataclasses
import math

import adafactor_one_by_one
import numpy as np
import pytest
import torch
from adafactor_one_by_one import OneByOne
from counting import CountingOperations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from training_runs import optimizer_settings

from model.glam.config import GLaMConfig
from model.glam.parameter import Weight
from model.glam.transformer import GLaM
from model.training.optimizers import adafactor, adafactor_batch, optim
from model.training.optimizers.optim import build_optimizer, learning_rate, set_learning_rate
from model.training.train_config import Schedule

PAPER = optimizer_settings("adafactor")
ADAMW = optimizer_settings("adamw", learning_rate=0.1, schedule=Schedule.constant, warmup_steps=0)
STEPS = 100


class Weights(nn.Module):
    def __init__(self, *shapes, seed=0):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.all = nn.ParameterList(torch.randn(s, generator=random) for s in shapes)


def draw_gradients(*modules, size=1.0, generator=None):
    """The same for each of these :class:`Weights`."""
    for alike in zip(*(weights.all for weights in modules), strict=True):
        gradient = torch.randn(alike[0].shape, generator=generator) * size
        for parameter in alike:
            parameter.grad = gradient.clone()


def rms(x):
    return math.sqrt(float(np.mean(np.square(x))))


class PlainAdafactor:
    """Shazeer and Stern 2018, algorithms 4 and 5, hyperparameters of their section 9."""

    def __init__(self, value):
        self.value, self.t = value.astype(np.float64), 0
        self.row = self.column = self.full = 0.0

    def step(self, gradient):
        self.t += 1
        g = gradient.astype(np.float64)
        beta = 1 - self.t**-0.8
        square = g**2 + 1e-30
        if g.ndim >= 2:
            self.row = beta * self.row + (1 - beta) * square.mean(-1)
            self.column = beta * self.column + (1 - beta) * square.mean(-2)
            mean = self.row.mean(-1)[..., None, None]
            second = self.row[..., :, None] * self.column[..., None, :] / mean
        else:
            self.full = second = beta * self.full + (1 - beta) * square
        update = g / np.sqrt(second)
        update /= max(1.0, rms(update) / 1.0)
        alpha = max(1e-3, rms(self.value)) * min(1e-2, 1 / math.sqrt(self.t))
        self.value = self.value - alpha * update


SHAPES = st.lists(
    st.sampled_from([(5,), (3, 4), (7, 2), (1, 6), (70, 3), (4, 3, 5), (2, 65, 4)]),
    min_size=1,
    max_size=3,
)


@pytest.fixture(params=["compiled", "of torch's operations"])
def way(request, monkeypatch):
    if request.param != "compiled":
        monkeypatch.setattr(adafactor.cpu_kernels, "can_read", lambda x: False)


# The fixture is the same for all examples.
few = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@few
@given(shapes=SHAPES, seed=st.integers(0, 99), size=st.sampled_from([1e-4, 1.0, 1e3]))
def test_adafactor_is_the_paper_s(way, shapes, seed, size):
    weights = Weights(*shapes, seed=seed)
    plain = [PlainAdafactor(p.detach().numpy()) for p in weights.all]
    optimizer = build_optimizer(PAPER, weights)
    random = np.random.default_rng(seed)
    for t in range(1, 6):
        for parameter, reference in zip(weights.all, plain, strict=True):
            gradient = (random.normal(size=parameter.shape) * size).astype(np.float32)
            parameter.grad = torch.from_numpy(gradient)
            reference.step(gradient)
        set_learning_rate(optimizer, learning_rate(PAPER, t, STEPS))
        optimizer.step()
    for parameter, reference in zip(weights.all, plain, strict=True):
        np.testing.assert_allclose(parameter.detach(), reference.value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stack", [1, 80, adafactor_batch.STACK])
def test_a_batch_of_weights_is_weight_after_weight(stack, monkeypatch):
    """Some have no gradient at times: weights of one shape differ in how many steps they made."""
    monkeypatch.setattr(adafactor.cpu_kernels, "can_read", lambda x: False)
    monkeypatch.setattr(adafactor_batch, "STACK", stack)
    shapes = [(4, 5), (6,), (4, 5), (2, 3, 5), (4, 5), (6,), (2, 3, 5), (1, 1)]
    batch, plain = Weights(*shapes), Weights(*shapes)
    optimizers = build_optimizer(PAPER, batch), OneByOne(plain.parameters(), 0.01)
    random = torch.Generator().manual_seed(1)
    for t in range(6):
        for i, (one, other) in enumerate(zip(batch.all, plain.all, strict=True)):
            gradient = torch.randn(one.shape, generator=random) * 10.0 ** (t - 3)
            one.grad = None if (i + t) % 3 == 0 else gradient
            other.grad = None if one.grad is None else gradient.clone()
        given = [None if p.grad is None else p.grad.clone() for p in batch.all]
        for optimizer in optimizers:
            optimizer.step()
        for parameter, gradient in zip(batch.all, given, strict=True):
            assert gradient is None or torch.equal(parameter.grad, gradient)
    for one, other in zip(batch.all, plain.all, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
        states = [o.state[p] for o, p in zip(optimizers, (one, other), strict=True)]
        torch.testing.assert_close(*map(dict, states), rtol=1e-6, atol=0)


def test_more_weights_of_a_shape_cost_few_operations(monkeypatch):
    monkeypatch.setattr(adafactor.cpu_kernels, "can_read", lambda x: False)
    counts = []
    for layers in (4, 40):
        weights = Weights(*[(4, 5), (6,), (2, 3, 5)] * layers)
        optimizer = build_optimizer(PAPER, weights)
        for _ in range(2):
            for parameter in weights.all:
                parameter.grad = torch.ones_like(parameter)
            with CountingOperations() as counting:
                optimizer.step()
        counts.append(counting.count)
    assert counts[1] == counts[0]


@pytest.mark.parametrize("rows", [[2], [0, 1, 2, 3]])
def test_an_expert_without_tokens_stays_as_it_was(way, rows):
    weights = Weights((4, 6, 5))
    before = weights.all[0].detach().clone()
    optimizer = build_optimizer(PAPER, weights)
    for _ in range(3):
        gradient = torch.randn(4, 6, 5)
        gradient[rows] = 0
        weights.all[0].grad = gradient
        optimizer.step()
    after = weights.all[0].detach()
    assert torch.equal(after[rows], before[rows])
    others = [e for e in range(4) if e not in rows]
    assert torch.isfinite(after).all()
    assert all(not torch.equal(after[e], before[e]) for e in others)


def test_the_usual_epsilon_would_not_do(monkeypatch):
    """Negative control of the test above: 1e-30 squares to 0 in float32."""
    monkeypatch.setattr(adafactor_one_by_one, "LEAST", 1e-30)
    weights = Weights((4, 6, 5))
    weights.all[0].grad = torch.randn(4, 6, 5) * torch.tensor([1.0, 0, 1, 1])[:, None, None]
    OneByOne(weights.parameters(), 0.01).step()
    assert weights.all[0].isnan().any()


@few
@given(shapes=SHAPES, seed=st.integers(0, 99), size=st.sampled_from([0.0, 1e-21, 1e-19, 1e-4, 1e3]))
def test_adafactor_is_torch_s(way, shapes, seed, size):
    """Below the bounds too, and its state: a checkpoint of one can be loaded into the other."""
    ours, theirs = Weights(*shapes, seed=seed), Weights(*shapes, seed=seed)
    reference = torch.optim.Adafactor(theirs.parameters(), lr=0.01, eps=(2e-19, 1e-3))
    optimizers = [build_optimizer(PAPER, ours), reference]
    random = torch.Generator().manual_seed(seed)
    for _ in range(3):
        draw_gradients(ours, theirs, size=size, generator=random)
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours.all, theirs.all, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        states = [o.state[p] for o, p in zip(optimizers, (one, other), strict=True)]
        torch.testing.assert_close(*map(dict, states), rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize("shape", [(130, 300), (3, 70, 5)])
def test_a_step_has_the_same_bits_for_any_number_of_threads(shape):
    results = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            weights = Weights(shape)
            optimizer = build_optimizer(PAPER, weights)
            weights.all[0].grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
            optimizer.step()
            results.append(weights.all[0].detach())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_the_paper_s_schedule_is_flat_for_ten_thousand_steps():
    rates = [learning_rate(PAPER, t, 600_000) for t in (1, 5_000, 10_000, 40_000, 600_000)]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.01, 0.005, 600_000**-0.5])


def test_warm_up_then_cosine():
    config = dataclasses.replace(
        ADAMW, learning_rate=1.0, schedule=Schedule.cosine, warmup_steps=10, final_share=0.2
    )
    rates = [learning_rate(config, t, 110) for t in range(1, 111)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    expected = 0.2 + 0.8 * (1 + np.cos(np.pi * np.arange(1, 101) / 100)) / 2
    np.testing.assert_allclose(rates[10:], expected)


def test_warm_up_then_a_plateau_then_a_line():
    shares = {"decay_share": 0.2, "final_share": 0.1}
    config = dataclasses.replace(
        ADAMW, learning_rate=1.0, schedule=Schedule.wsd, warmup_steps=10, **shares
    )
    rates = [learning_rate(config, t, 100) for t in range(1, 101)]
    # A polygon through the end of the warm-up, the end of the plateau, and the end.
    np.testing.assert_allclose(rates, np.interp(range(1, 101), [0, 10, 80, 100], [0, 1, 1, 0.1]))


def test_a_plateau_and_a_decay_of_its_own_are_one_schedule():
    """What a trunk and a run that starts from it do, beside a run that does both."""
    whole = dataclasses.replace(ADAMW, schedule=Schedule.wsd, decay_share=0.25, final_share=0.0)
    trunk = dataclasses.replace(whole, schedule=Schedule.constant)
    decay = dataclasses.replace(whole, decay_share=1.0)
    rates = [learning_rate(whole, t, 40) for t in range(1, 41)]
    parts = [learning_rate(trunk, t, 30) for t in range(1, 31)]
    parts += [learning_rate(decay, t, 10, 30) for t in range(1, 11)]
    np.testing.assert_allclose(parts, rates, atol=1e-12)
    assert rates[-1] == 0


def test_adafactor_s_limit_counts_the_updates_before_the_start():
    config = dataclasses.replace(PAPER, schedule=Schedule.constant)
    assert learning_rate(config, 1, STEPS, 40_000) == pytest.approx(40_001**-0.5)


@given(multiplier=st.sampled_from([0.25, 0.5, 1.0, 4.0]), update=st.integers(1, 10**6))
def test_a_multiplier_scales_the_schedule_as_far_as_adafactor_goes(multiplier, update):
    config = dataclasses.replace(PAPER, multiplier=multiplier)
    wanted = multiplier * learning_rate(PAPER, update, STEPS)
    assert learning_rate(config, update, STEPS) == pytest.approx(min(wanted, update**-0.5))


def test_the_rate_that_is_logged_is_the_one_that_is_used():
    """At a rate that torch's Adafactor would cap, the step is that of the capped rate."""
    moved = []
    for multiplier in (4.0, 1.0):
        weights = Weights((6, 5))
        before = weights.all[0].detach().clone()
        optimizer = build_optimizer(PAPER, weights)
        weights.all[0].grad = torch.ones(6, 5)
        config = dataclasses.replace(PAPER, multiplier=multiplier, schedule=Schedule.constant)
        set_learning_rate(optimizer, learning_rate(config, 1, STEPS))
        optimizer.step()
        moved.append(weights.all[0].detach() - before)
    torch.testing.assert_close(moved[0], 4 * moved[1], rtol=1e-4, atol=1e-7)


def test_adamw_is_loshchilov_and_hutter_s():
    config = dataclasses.replace(ADAMW, betas=[0.8, 0.9], weight_decay=0.5)
    weights = nn.ModuleList([Weight(3, 2, std=1.0), Weight(4, 2, std=1.0, decay=False)])
    for i, weight in enumerate(weights):
        nn.init.normal_(weight.weight, generator=torch.Generator().manual_seed(i))
    parameters = list(weights.parameters())
    optimizer = build_optimizer(config, weights)
    values = [p.detach().double().numpy().copy() for p in parameters]
    first, second = [np.zeros_like(v) for v in values], [np.zeros_like(v) for v in values]
    random = np.random.default_rng(0)
    for t in range(1, 5):
        set_learning_rate(optimizer, learning_rate(config, t, STEPS))
        for i, parameter in enumerate(parameters):
            g = random.normal(size=parameter.shape)
            parameter.grad = torch.tensor(g, dtype=torch.float32)
            first[i] = 0.8 * first[i] + 0.2 * g
            second[i] = 0.9 * second[i] + 0.1 * g**2
            step = first[i] / (1 - 0.8**t) / (np.sqrt(second[i] / (1 - 0.9**t)) + 1e-8)
            decay = 0.5 if i == 0 else 0.0
            values[i] = values[i] - 0.1 * (step + decay * values[i])
        optimizer.step()
    for parameter, value in zip(parameters, values, strict=True):
        np.testing.assert_allclose(parameter.detach(), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_adamw_decays_all_of_a_model_but_norms_and_attention_s_biases(layers):
    sizes = {"width": 16, "hidden": 32, "heads": 2, "head_width": 8, "experts": 4}
    model = GLaM(GLaMConfig(vocabulary=50, layers=layers, **sizes))
    config = dataclasses.replace(ADAMW, weight_decay=0.5)
    decay_of = {
        id(parameter): group["weight_decay"]
        for group in build_optimizer(config, model).param_groups
        for parameter in group["params"]
    }
    found = {name: decay_of[id(p)] for name, p in model.named_parameters()}
    spared = ("attention_norm.scale", "attention.bias", "feed_forward_norm.scale")
    spared = [f"layers.{i}.{name}.weight" for i in range(layers) for name in spared]
    assert found == dict.fromkeys(found, 0.5) | dict.fromkeys(
        [*spared, "final_norm.scale.weight"], 0.0
    )


@pytest.mark.parametrize("limit", [None, 0.5, 100.0])
def test_gradients_are_clipped_as_torch_does(limit):
    ours, theirs = Weights((3, 4), (5,)), Weights((3, 4), (5,))
    draw_gradients(ours, theirs)
    optim.clip(ours, optim.gradient_norm(ours), limit)
    if limit is not None:
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit)
    for one, other in zip(ours.all, theirs.all, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert (float(optim.gradient_norm(ours)) < 1) == (limit == 0.5)


def test_adamw_clips_by_default_and_adafactor_does_not():
    assert (ADAMW.clip, PAPER.clip) == (1.0, None)


def on_device(optimizer, finite):
    """As :func:`model.training.optimizers.optim.step` does where the host must not wait."""
    optimizer.found_inf = torch.tensor(float(not finite))
    if isinstance(optimizer, adafactor.Adafactor):
        members = [
            adafactor_batch.Member(p, p.grad, optimizer.state[p], 3.0)
            for p in optimizer.param_groups[0]["params"]
        ]
        with torch.no_grad():
            adafactor_batch.update(members, 0.01, optimizer.found_inf)
    else:
        optimizer.step()


@pytest.mark.parametrize("config", [PAPER, ADAMW], ids=["adafactor", "adamw"])
def test_a_device_leaves_all_as_it_was_where_a_gradient_is_not_finite(config, way):
    weights, plain = Weights((3, 4), (5,), (3, 4)), Weights((3, 4), (5,), (3, 4))
    optimizers = [build_optimizer(config, w) for w in (weights, plain)]
    for _ in range(2):
        draw_gradients(weights, plain)
        for optimizer in optimizers:
            optimizer.step()
    draw_gradients(weights, plain, size=math.nan)
    on_device(optimizers[0], finite=False)
    draw_gradients(weights, plain)
    on_device(optimizers[0], finite=True)
    on_device(optimizers[1], finite=True)
    for one, other in zip(weights.all, plain.all, strict=True):
        assert torch.equal(one, other)
        states = [o.state[p] for o, p in zip(optimizers, (one, other), strict=True)]
        torch.testing.assert_close(*map(dict, states), rtol=0, atol=0)


def test_a_step_that_changed_nothing_is_taken_out_of_the_count():
    weights = Weights((3, 4), (5,))
    optimizer = build_optimizer(PAPER, weights)
    for parameter in weights.all:
        parameter.grad = torch.ones_like(parameter)
    for counted in (1, 2):
        optimizer.step()
        assert {float(optimizer.state[p]["step"]) for p in weights.all} == {counted}
    for _ in range(2):  # the second time there is nothing to take
        optim.uncount(optimizer)
        assert {float(optimizer.state[p]["step"]) for p in weights.all} == {1}


def test_norms_and_finiteness():
    weights = Weights((3, 4), (5,))
    for i, parameter in enumerate(weights.all):
        parameter.grad = torch.full_like(parameter, i + 1.0)
    assert float(optim.gradient_norm(weights)) == pytest.approx(math.sqrt(12 * 1 + 5 * 4))
    assert optim.finite(weights)
    weights.all[1].data[2] = math.inf
    assert not optim.finite(weights)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"multiplier": -1.0}, "multiplier"),
        ({"betas": [0.9]}, "betas"),
    ],
)
def test_impossible_settings_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(ADAMW, **change)
