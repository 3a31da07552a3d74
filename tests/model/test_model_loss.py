"""The chunked vocabulary loss against torch's cross-entropy over all logits, in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from model.glam import loss
from model.glam.loss import IGNORE, vocabulary_loss
from model.ops import cpu_kernels


def problem(T, M, V, dtype, seed=0, ignored=0.3):
    generator = torch.Generator().manual_seed(seed)
    hidden = (3 * torch.randn(T, M, generator=generator)).to(dtype)
    embedding = torch.randn(V, M, generator=generator)
    targets = torch.randint(0, V, (T,), generator=generator)
    targets[torch.rand(T, generator=generator) < ignored] = IGNORE
    return hidden, embedding, targets


def plain(hidden, embedding, targets, scale, denominator):
    logits = scale * hidden.double() @ embedding.double().T
    loss = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    z = (logits.logsumexp(-1) ** 2)[targets != IGNORE].sum()
    return loss / denominator, z / denominator


@given(
    st.integers(1, 40),
    st.sampled_from([2, 33, 200]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([1, 100, 3000, 1 << 23]),
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_value_and_gradients_whatever_the_chunks(T, V, z_coefficient, chunk_logits, plainly, seed):
    with pytest.MonkeyPatch.context() as patch:
        if plainly:  # as on other devices than a CPU
            patch.setattr(cpu_kernels, "can_read", lambda x: False)
        check_value_and_gradients(T, V, z_coefficient, chunk_logits, seed)


def check_value_and_gradients(T, V, z_coefficient, chunk_logits, seed):
    hidden, embedding, targets = problem(T, 8, V, torch.float32, seed)
    hidden.requires_grad_(), embedding.requires_grad_()
    found = vocabulary_loss(
        hidden,
        embedding,
        targets,
        scale=0.7,
        denominator=T,
        z_coefficient=z_coefficient,
        chunk_logits=chunk_logits,
    )
    nats, z = plain(hidden, embedding, targets, 0.7, T)
    close = {"rtol": 2e-5, "atol": 2e-5, "check_dtype": False}
    torch.testing.assert_close(found.cross_entropy, nats, **close)
    torch.testing.assert_close(found.z_loss, z, **close)
    torch.testing.assert_close(found.objective, nats + z_coefficient * z, **close)
    assert not found.cross_entropy.requires_grad
    torch.testing.assert_close(
        torch.autograd.grad(3 * found.objective, (hidden, embedding)),
        torch.autograd.grad(3 * (nats + z_coefficient * z), (hidden, embedding)),
        **close,
    )


def test_bfloat16_value_is_exact_to_its_inputs_where_torchs_linear_cross_entropy_is_not():
    hidden, embedding, targets = problem(2048, 64, 4096, torch.bfloat16, ignored=0)
    embedding = embedding.bfloat16()
    scale = 1 / 8
    expected, _ = plain(hidden, embedding, targets, scale, len(targets))
    found = vocabulary_loss(
        hidden, embedding, targets, scale=scale, denominator=len(targets)
    ).cross_entropy
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
    # The trap: torch's own fused loss, whose value is off by more than the filter's effect.
    torchs = F.linear_cross_entropy(scale * hidden, embedding, targets)
    assert abs(float(torchs) / float(expected) - 1) > 1e-3


def test_bfloat16_gradients_are_near():
    hidden, embedding, targets = problem(512, 64, 500, torch.bfloat16)
    hidden.requires_grad_(), embedding.requires_grad_()
    found = vocabulary_loss(
        hidden, embedding, targets, scale=0.1, denominator=512, chunk_logits=100_000
    ).objective
    expected, _ = plain(hidden, embedding, targets, 0.1, 512)
    for a, b in zip(
        torch.autograd.grad(found, (hidden, embedding)),
        torch.autograd.grad(expected, (hidden, embedding)),
        strict=True,
    ):
        assert float((a.double() - b.double()).norm() / b.double().norm()) < 1e-2
    (gradient,) = torch.autograd.grad(
        vocabulary_loss(hidden, embedding, targets, scale=0.1, denominator=512).objective, embedding
    )
    assert gradient.dtype == torch.float32


@pytest.mark.slow
def test_what_cuda_compiles_is_whole_graphs(monkeypatch):
    """Traced, without code for a device, which takes one; the next chunk has another length."""
    graphs = [
        torch.compile(function, fullgraph=True, backend="eager")
        for function in (loss.row_sums, loss.to_gradient_)
    ]
    monkeypatch.setattr(loss, "row_sums", graphs[0])
    monkeypatch.setattr(loss, "to_gradient_", graphs[1])
    for T, with_gradient in ((6, True), (6, False), (4, True)):
        hidden, embedding, targets = problem(T, 8, 33, torch.bfloat16)
        logits = hidden @ embedding.bfloat16().T
        other = logits.clone()
        found = loss.cross_entropy_(logits, targets, 0.5, 0.1, with_gradient)
        expected = cpu_kernels.cross_entropy_(other, targets, 0.5, 0.1, with_gradient)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(logits, other)


@pytest.mark.parametrize(
    ("vocabulary", "tokens"), [(32_000, 8_388), (256_000, 2_048), (1_000_000, 2_048)]
)
def test_chunks_on_cuda_are_long_for_any_vocabulary(vocabulary, tokens):
    embedding = torch.empty(vocabulary, 1, device="meta")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "is_cuda", True)
        assert loss.chunk_tokens(embedding) == tokens
        assert loss.chunk_tokens(embedding, 1_000_000) == max(1, 1_000_000 // vocabulary)


def test_no_token_gives_zero():
    hidden, embedding, targets = problem(0, 8, 11, torch.float32)
    embedding.requires_grad_()
    vocabulary_loss(hidden, embedding, targets, scale=1, denominator=1).objective.backward()
    assert (embedding.grad == 0).all()


def test_padding_alone_gives_zero_and_no_gradient():
    hidden, embedding, targets = problem(5, 8, 11, torch.float32, ignored=1.1)
    hidden.requires_grad_()
    found = vocabulary_loss(hidden, embedding, targets, scale=1, denominator=5)
    found.objective.backward()
    assert float(found.cross_entropy) == float(found.z_loss) == 0
    assert (hidden.grad == 0).all()


def test_huge_logits_stay_finite():
    hidden, embedding, targets = problem(6, 8, 11, torch.float32, ignored=0)
    found = vocabulary_loss(1e4 * hidden, embedding, targets, scale=1.0, denominator=6)
    expected, _ = plain(1e4 * hidden, embedding, targets, 1.0, 6)
    assert float(found.cross_entropy) == pytest.approx(float(expected), rel=1e-5)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize("chunk_logits", [16_000, 100_000])
def test_logits_of_one_chunk_exist_at_a_time(chunk_logits):
    hidden, embedding, targets = problem(1024, 8, 1000, torch.float32)
    hidden.requires_grad_(), embedding.requires_grad_()
    with Largest() as largest:
        vocabulary_loss(
            hidden, embedding, targets, scale=1.0, denominator=1.0, chunk_logits=chunk_logits
        ).objective.backward()
    assert largest.numel == chunk_logits
