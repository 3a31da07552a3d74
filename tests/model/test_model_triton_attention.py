"""The Triton kernels of attention, run by Triton's interpreter, against float64.

Its functions must be imported with ``TRITON_INTERPRET=1``, so they run in a process of their own.
The interpreter multiplies no bfloat16: float16 stands for it.
"""

import importlib.util
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from model.glam.attention import additive_mask, attend, attention_mask, bias_of_distance
from model.glam.config import AttentionBackend, GLaMConfig
from model.glam.transformer import GLaM
from model.training import hardware

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed here"
)

FAR, BUCKETS = 32, 16
ONES = [*range(1, 18), *[18] * 4, 19, *[20] * 29]
"""Documents of 1, of 4 and of 29 positions."""
CASES = {
    # Rows, heads, their width, queries, and the documents of all keys; distances up to FAR have a
    # bias of their own.
    "rows and heads": (2, 2, 16, 37, ONES[:37]),
    "far keys": (1, 1, 32, 60, [0, 0, *[1] * 58]),
    "documents of one": (1, 1, 16, 51, ONES),
    "three documents": (1, 1, 16, 70, [*[0] * 32, *[1] * 32, *[2] * 6]),
    "one document of whole tiles": (1, 2, 64, 32, [0] * 32),
    "no far distance": (1, 1, 128, 7, [3] * 7),
    "the last positions alone": (1, 1, 16, 21, ONES),
}
CONFIG = GLaMConfig(
    vocabulary=50, layers=1, width=32, hidden=32, heads=2, head_width=16, experts=2,
    bias_buckets=8, bias_distance=10,
)  # fmt: skip
NAMES = ("y", "q", "k", "v", "table")


def problem(name, dtype=torch.float32):
    """Queries, keys, values and biases; the documents; the gradient of the result."""
    B, N, D, S, documents = CASES[name]
    K = len(documents)
    generator = torch.Generator().manual_seed(0)
    # As the model has them: the heads of a position side by side.
    q, k, v, direction = (
        torch.randn(B, n, N, D, generator=generator).transpose(1, 2).to(dtype) for n in (S, K, K, S)
    )
    table = torch.randn(N, BUCKETS, generator=generator)
    segments = torch.tensor([documents, documents[::-1]][:B], dtype=torch.int32)
    return [q / D**0.25, k / D**0.25, v, table], segments, direction


def solved(inputs, segments, direction, backend):
    """The result, and the gradients of all inputs."""
    q, k, v, table = inputs = [x.detach().requires_grad_() for x in inputs]
    queries = segments[:, k.shape[2] - q.shape[2] :].contiguous()
    if backend == AttentionBackend.plain:  # not the CPU's kernels
        mask = additive_mask(queries, segments, q.dtype)
    else:
        mask = attention_mask(queries, segments, q.dtype, FAR, backend)
    y = attend(q, k, v, bias_of_distance(table, k.shape[2], FAR), mask)
    return [y.detach(), *torch.autograd.grad(y, inputs, direction)]


def learned(backend):
    """The loss of a model, and all gradients."""
    model = GLaM(CONFIG, attention=backend)
    generator = torch.Generator().manual_seed(0)
    stream = torch.randint(0, 50, (1, 21), generator=generator)
    segments = (torch.arange(20) // 15).int()[None]
    total = model.loss(stream[:, :-1], stream[:, 1:], segments).total
    total.backward()
    return [total.detach(), *(p.grad for p in model.parameters())]


def with_others_poisoned():
    """The middle document's results, with numbers in the tiles of the others and with NaN."""
    found = []
    for value in (0.5, float("nan")):
        (q, k, v, table), segments, direction = problem("three documents")
        for x in (q, k, v, direction):
            x[:, :, :32] = x[:, :, 64:] = value
        y, *grads, _ = solved([q, k, v, table], segments, direction, AttentionBackend.triton)
        found.append([x[:, :, 32:64].clone() for x in (y, *grads)])
    return found


def interpret(path):
    """Everything that needs the interpreter, into a file."""
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    from model.ops import triton_attention
    from model.ops.triton_attention import Plan, Tiles

    triton_attention.plan = lambda width, dtype: Plan(
        Tiles(32, 16, 4, 2), Tiles(32, 16, 4, 2), Tiles(16, 32, 4, 2)
    )
    triton = AttentionBackend.triton
    found = {name: solved(*problem(name), triton) for name in CASES}
    found["again"] = solved(*problem("rows and heads"), triton)
    found["half"] = solved(*problem("far keys", torch.float16), triton)
    found["model"] = learned(triton)
    found["poisoned"] = with_others_poisoned()
    torch.save(found, path)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("interpreted") / "found.pt"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(interpret, path).result()
    return torch.load(path, weights_only=True)


def exact(name, dtype=torch.float32):
    inputs, segments, direction = problem(name, dtype)
    doubles = [x.double() for x in inputs]
    return solved(doubles, segments, direction.double(), AttentionBackend.plain)


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_the_plain_one_computes_in_float64(found, name):
    for what, a, b in zip(NAMES, found[name], exact(name), strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 2e-6, what


def test_halves_are_near_float64(found):
    for a, b in zip(found["half"], exact("far keys", torch.float16), strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 2e-3


def test_the_same_inputs_give_the_same_bits(found):
    for a, b in zip(found["again"], found["rows and heads"], strict=True):
        assert torch.equal(a, b)


def test_tiles_of_other_documents_are_not_read(found):
    """A weight of 0 times NaN would be NaN."""
    plain, poisoned = found["poisoned"]
    for a, b in zip(plain, poisoned, strict=True):
        assert torch.equal(a, b)


def test_a_model_learns_by_it_as_by_the_plain_one(found):
    expected = learned(AttentionBackend.plain)
    for a, b in zip(found["model"], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_heads_and_distances_that_have_no_tiles_are_refused():
    inputs, segments, direction = problem("no far distance")
    narrow = [inputs[0][..., :8], inputs[1][..., :8], inputs[2][..., :8], inputs[3]]
    with pytest.raises(ValueError, match="heads of 8 are none of 16, 32, 64, 128"):
        solved(narrow, segments, direction[..., :8], AttentionBackend.triton)
    q = torch.zeros(1, 1, 300, 16)
    mask = attention_mask(*[torch.zeros(1, 300).int()] * 2, q.dtype, 300, AttentionBackend.triton)
    with pytest.raises(ValueError, match="bias_distance=300 is more than 256"):
        attend(q, q, q, torch.zeros(1, 300), mask)


def test_it_is_refused_where_it_cannot_run(monkeypatch):
    with pytest.raises(ValueError, match="attention=triton trains on CUDA only"):
        hardware.check_attention(AttentionBackend.triton, torch.device("cpu"))
    hardware.check_attention(AttentionBackend.triton, torch.device("cuda"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package triton"):
        hardware.check_attention(AttentionBackend.triton, torch.device("cuda"))
