"""The compiled rows against the same in float64, written out with torch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from model.glam.transformer import RMSNorm, geglu
from model.ops import cpu_kernels

DTYPES = [torch.float32, torch.bfloat16]
seeds = st.integers(0, 2**31)


UNIT = {torch.float32: 2**-18, torch.bfloat16: 2**-8}
"""What rounding costs; for float32 with what the exponential makes of that of its argument."""


def near(found, expected, dtype, floor=1e-6):
    torch.testing.assert_close(
        found.double(), expected.detach(), rtol=1.01 * UNIT[dtype], atol=floor
    )


def near_in_all(found, expected, dtype, scale):
    """A gradient, whose parts may be small differences of large ones of size ``scale``."""
    error = (found.double() - expected).norm()
    assert error <= 2 * UNIT[dtype] * (expected.norm() + scale * expected.numel() ** 0.5)


def attention_problem(dtype, rows, heads, queries, keys, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(rows * heads, queries, keys, generator=generator)).to(dtype)
    line = torch.randn(heads, keys, generator=generator)
    segments = torch.randint(0, 3, (rows, keys), generator=generator).sort(1).values.int()
    return logits, line, segments, torch.randn(logits.shape, generator=generator).to(dtype)


def softmax_written_out(logits, line, segments, queries):
    """Float64 [P, Q, K]."""
    keys = line.shape[1]
    rows = len(segments)
    query = torch.arange(keys - queries, keys)[:, None]
    distance = query - torch.arange(keys)
    bias = line[:, (keys - 1 - distance).clamp(max=keys - 1)]
    hidden = (distance < 0) | (segments[:, query] != segments[:, None, :])
    logits = logits.unflatten(0, (rows, -1)) + bias
    return logits.masked_fill(hidden[:, None], -torch.inf).softmax(-1).flatten(0, 1)


@given(
    st.sampled_from(DTYPES),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(0, 70),
    seeds,
)
@settings(max_examples=40, deadline=None)
def test_softmax_and_its_gradients(dtype, rows, heads, queries, past, seed):
    logits, line, segments, direction = attention_problem(
        dtype, rows, heads, queries, queries + past, seed
    )
    exact_logits, exact_line = logits.double().requires_grad_(), line.double().requires_grad_()
    expected = softmax_written_out(exact_logits, exact_line, segments, queries)
    cpu_kernels.biased_softmax_(logits, line, segments[:, past:].contiguous(), segments)
    near(logits, expected, dtype)
    assert torch.equal(logits == 0, expected == 0)

    expected.backward(direction.double())
    of_line = torch.zeros(rows * heads, queries + past)
    cpu_kernels.biased_softmax_backward_(logits, direction, of_line)
    near_in_all(direction, exact_logits.grad, dtype, scale=0.5)
    of_line = of_line.unflatten(0, (rows, -1)).sum(0)
    near_in_all(of_line, exact_line.grad, dtype, scale=0.5 * queries**0.5)


@given(
    st.sampled_from(DTYPES),
    st.integers(1, 20),
    st.integers(1, 300),
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
    seeds,
)
@settings(max_examples=40, deadline=None)
def test_cross_entropy_and_its_gradient(dtype, tokens, vocabulary, z, with_gradient, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = (30 * torch.randn(tokens, vocabulary, generator=generator)).to(dtype)
    targets = torch.randint(0, vocabulary, (tokens,), generator=generator)
    targets[torch.rand(tokens, generator=generator) < 0.3] = -100
    exact = logits.double().requires_grad_()
    loss = F.cross_entropy(0.5 * exact, targets, ignore_index=-100, reduction="none")
    logsumexp = (0.5 * exact).logsumexp(-1).masked_fill(targets < 0, 0)

    before = logits.clone()
    found = cpu_kernels.cross_entropy_(logits, targets, 0.5, z, with_gradient)
    near(found[0], loss, torch.float32, floor=1e-4)
    near(found[1], logsumexp, torch.float32, floor=1e-4)
    if with_gradient:
        (loss.sum() + z * logsumexp.square().sum()).backward()
        near(logits, exact.grad, dtype)
    else:
        assert torch.equal(logits, before)


@given(st.sampled_from(DTYPES), st.integers(1, 150), st.integers(4, 70), seeds)
@settings(max_examples=40, deadline=None)
def test_rms_norm_and_its_gradients(dtype, tokens, width, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=generator).to(dtype).requires_grad_()
    direction = torch.randn(tokens, width, generator=generator).to(dtype)
    norm = RMSNorm(width, 1e-6)
    norm.scale.weight.data.normal_(generator=generator)
    exact, scale = x.detach().double().requires_grad_(), norm.scale.weight.detach().double()
    scale.requires_grad_()
    expected = exact / (exact.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale
    found = norm(x)
    assert found.dtype == dtype
    near(found, expected, dtype)
    found.backward(direction)
    expected.backward(direction.double())
    near_in_all(x.grad, exact.grad, dtype, scale=1)
    near_in_all(norm.scale.weight.grad, scale.grad, torch.float32, scale=tokens**0.5)


@given(st.sampled_from(DTYPES), st.integers(1, 20), st.integers(1, 70), seeds)
@settings(max_examples=40, deadline=None)
def test_geglu_and_its_gradients(dtype, tokens, width, seed):
    generator = torch.Generator().manual_seed(seed)
    gate, up, direction = (
        (scale * torch.randn(tokens, width, generator=generator)).to(dtype).requires_grad_()
        for scale in (5, 1, 1)
    )
    exact = [x.detach().double().requires_grad_() for x in (gate, up)]
    expected = F.gelu(exact[0], approximate="tanh") * exact[1]
    found = geglu(gate, up)
    assert found.dtype == dtype
    near(found, expected, dtype)
    found.backward(direction)
    expected.backward(direction.double())
    near(gate.grad, exact[0].grad, dtype)
    near(up.grad, exact[1].grad, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(dtype):
    def everything(threads):
        torch.set_num_threads(threads)
        logits, line, segments, direction = attention_problem(dtype, 3, 3, 20, 33, 0)
        cpu_kernels.biased_softmax_(logits, line, segments[:, 13:].contiguous(), segments)
        of_line = torch.zeros(9, 33)
        cpu_kernels.biased_softmax_backward_(logits, direction, of_line)
        flat = logits.view(180, 33)
        targets = torch.arange(180) % 33
        loss, logsumexp = cpu_kernels.cross_entropy_(flat.clone(), targets, 1.0, 0.1, True)
        scale = torch.rand(33, generator=torch.Generator().manual_seed(1)).requires_grad_()
        x = flat.clone().requires_grad_()
        normed = cpu_kernels.rms_norm(x, scale, 1e-6)
        gated = cpu_kernels.geglu(x, normed)
        grads = torch.autograd.grad(gated, [x, scale], direction.view(180, 33))
        return [logits, direction, of_line, loss, logsumexp, normed, gated, *grads]

    # One thread last, as all other tests have it.
    for several, one in zip(everything(4), everything(1), strict=True):
        assert torch.equal(one, several)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [float("nan"), -float("nan"), float("inf")])
def test_what_is_no_number_stays_none(dtype, wrong):
    logits, line, segments, _ = attention_problem(dtype, 1, 1, 4, 40, 0)
    segments[:] = 0
    logits[0, 1, 20] = wrong
    cpu_kernels.biased_softmax_(logits, line, segments[:, 36:].contiguous(), segments)
    # Not the future's zeros.
    assert logits[0, 1, :38].isnan().all()
    assert not logits[0, 0].isnan().any()

    row = torch.zeros(1, 40, dtype=dtype)
    row[0, 20] = wrong
    loss, _ = cpu_kernels.cross_entropy_(row, torch.tensor([3]), 1.0, 0.0, True)
    assert loss.isnan()
    assert row.isnan().any()

    x = torch.ones(2, 40, dtype=dtype)
    x[1, 20] = wrong
    y = cpu_kernels.rms_norm(x, torch.ones(40), 1e-6)
    assert not y[0].isnan().any()
    assert y[1].isnan().any()

    y = cpu_kernels.geglu(x, torch.ones_like(x))
    assert torch.equal(y.isfinite(), x.isfinite())


def test_bfloat16_is_rounded_to_the_nearest():
    x = torch.cat([torch.randn(4000), torch.tensor([1 + 2**-8, 1 + 3 * 2**-8])])  # two ties
    # A norm of rows of one value with this scale: 1 * scale.
    rows = torch.ones(1, len(x), dtype=torch.bfloat16)
    found = cpu_kernels.rms_norm(rows, x, 0.0)
    assert torch.equal(found[0], x.bfloat16())
