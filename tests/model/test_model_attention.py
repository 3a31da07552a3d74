"""Attention and its relative bias against a plain reference and transformers' T5."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.glam import attention
from model.glam.attention import (
    additive_mask,
    attend,
    attend_flex,
    attention_mask,
    bias_of_distance,
    flex_mask,
    relative_bucket,
    toeplitz,
)


@pytest.mark.parametrize(("buckets", "far"), [(32, 128), (8, 20), (2, 5)])
def test_buckets_are_those_of_t5(buckets, far):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distance = torch.arange(1000)
    expected = t5.T5Attention._relative_position_bucket(
        -distance, bidirectional=False, num_buckets=buckets, max_distance=far
    )
    torch.testing.assert_close(relative_bucket(distance, buckets, far), expected)


def test_buckets_of_glam():
    bucket = relative_bucket(torch.tensor([0, 1, 15, 16, 127, 128, 10**6]), 32, 128).tolist()
    assert bucket == [0, 1, 15, 16, 31, 31, 31]


def reference(q, k, v, table, segments, far):
    """Position by position, for one row: all of it, no cache."""
    heads, S, _ = q.shape
    out = torch.zeros_like(q)
    for n in range(heads):
        for i in range(S):
            seen = [j for j in range(i + 1) if segments[j] == segments[i]]
            logits = torch.stack(
                [
                    q[n, i] @ k[n, j]
                    + table[n, int(relative_bucket(torch.tensor(i - j), table.shape[1], far))]
                    for j in seen
                ]
            )
            out[n, i] = torch.softmax(logits, 0) @ v[n, seen]
    return out


def problem(S, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 2, S, 4, generator=generator, dtype=dtype) for _ in range(3))
    table = torch.randn(2, 8, generator=generator, dtype=dtype)
    segments = torch.randint(0, 3, (2, S), generator=generator).sort(1).values.int()
    return q, k, v, table, segments


def ours(q, k, v, table, segments, far=20):
    bias = bias_of_distance(table, k.shape[2], far)
    queries = segments[:, k.shape[2] - q.shape[2] :]
    return attend(q, k, v, bias, additive_mask(queries, segments, q.dtype))


@given(st.sampled_from([1, 2, 9, 30]), st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_attention_and_its_gradients_are_those_of_a_plain_reference(S, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "BLOCK", 8)
        check_against_the_reference(S, seed)


def check_against_the_reference(S, seed):
    *inputs, segments = problem(S, seed=seed)
    for t in inputs:
        t.requires_grad_()
    found = ours(*inputs, segments)
    q, k, v, table = inputs
    expected = torch.stack(
        [reference(q[b], k[b], v[b], table, segments[b].tolist(), 20) for b in range(2)]
    )
    torch.testing.assert_close(found, expected)
    direction = torch.randn(found.shape, dtype=found.dtype)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, direction),
        torch.autograd.grad(expected, inputs, direction),
    )


def on_cpu(q, k, v, table, segments):
    """As the model attends on a CPU."""
    mask = attention_mask(segments[:, k.shape[2] - q.shape[2] :], segments, q.dtype, 20)
    return attend(q, k, v, bias_of_distance(table, k.shape[2], 20), mask)


@pytest.mark.parametrize("way", [ours, on_cpu])
@pytest.mark.parametrize("last", [300, 200, 1])
@pytest.mark.parametrize(
    ("dtype", "tolerance", "norm"), [(torch.float32, 1e-4, 1e-5), (torch.bfloat16, 8e-2, 2e-2)]
)
def test_float32_and_bfloat16_are_near_float64_and_so_are_their_gradients(
    way, last, dtype, tolerance, norm
):
    q, k, v, table, segments = problem(300)
    q = q[:, :, 300 - last :]
    inputs = [t.requires_grad_() for t in (q, k, v, table)]
    exact = ours(*inputs, segments)
    lower = [t.detach().to(dtype).requires_grad_() for t in (q, k, v)]
    lower.append(table.detach().float().requires_grad_())
    found = way(*lower, segments)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)
    direction = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    for a, b in zip(
        torch.autograd.grad(found, lower, direction),
        torch.autograd.grad(exact, inputs, direction.double()),
        strict=True,
    ):
        assert float((a.double() - b).norm() / b.norm()) < norm


def flex(q, k, v, table, segments):
    bias = bias_of_distance(table, k.shape[2], 20)
    mask = flex_mask(segments[:, k.shape[2] - q.shape[2] :].contiguous(), segments)
    return attend_flex(q, k, v, bias, mask)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("last", [150, 20])
def test_flex_attention_is_the_plain_one_forward(last):
    q, k, v, table, segments = problem(150, torch.float32)
    with torch.no_grad():
        q = q[:, :, -last:]
        torch.testing.assert_close(
            flex(q, k, v, table, segments), ours(q, k, v, table, segments), rtol=1e-5, atol=1e-5
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention's backward needs a GPU")
def test_flex_attention_has_the_gradients_of_the_plain_one():
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (torch.randn(2, 2, 150, 16, generator=generator, device="cuda") for _ in range(3))
    table = torch.randn(2, 8, generator=generator, device="cuda")
    segments = torch.arange(150, device="cuda").div(60, rounding_mode="floor").expand(2, -1).int()
    inputs = [t.requires_grad_() for t in (q, k, v, table)]
    direction = torch.randn(q.shape, generator=generator, device="cuda")
    torch.testing.assert_close(
        torch.autograd.grad(flex(*inputs, segments.contiguous()), inputs, direction),
        torch.autograd.grad(ours(*inputs, segments.contiguous()), inputs, direction),
        rtol=1e-2,
        atol=1e-2,
    )


def test_the_last_positions_alone_get_what_they_get_among_all():
    q, k, v, table, segments = problem(17)
    whole = ours(q, k, v, table, segments)
    torch.testing.assert_close(ours(q[:, :, 12:], k, v, table, segments), whole[:, :, 12:])


def test_distances_lie_along_diagonals():
    laid = toeplitz(torch.arange(5.0)[None], 3)[0]
    assert laid.tolist() == [[2, 1, 0, 0, 0], [3, 2, 1, 0, 0], [4, 3, 2, 1, 0]]


def test_masked_positions_have_a_weight_of_exactly_zero():
    q, k, v, table, segments = problem(12)
    expected = ours(q, k, v, table, segments)
    other = segments == segments[:, -1:]
    v = v.masked_fill(other[:, None, :, None], 1e30)
    k = k.masked_fill(other[:, None, :, None], -1e3)
    found = ours(q, k, v, table, segments)
    untouched = ~other[:, None, :, None].expand_as(found)
    assert untouched.any()
    assert torch.equal(found[untouched], expected[untouched])


def test_logits_are_not_divided_by_the_root_of_the_head_width():
    q, k, v, _, _ = problem(2)
    found = ours(q, k, v, torch.zeros(2, 8, dtype=torch.float64), torch.zeros(2, 2).int())
    a, b = (float(q[0, 0, 1] @ k[0, 0, j]) for j in (0, 1))
    weight = 1 / (1 + math.exp(b - a))
    torch.testing.assert_close(found[0, 0, 1], weight * v[0, 0, 0] + (1 - weight) * v[0, 0, 1])
