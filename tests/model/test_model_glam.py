"""The whole model: written out plainly, documents apart, the cache, losses."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from glam_models import DENSE, SPARSE, tokens

from model.glam.attention import Cache
from model.glam.config import AttentionBackend
from model.glam.loss import IGNORE
from model.glam.transformer import GLaM


def documents(rows=2, positions=24):
    """Three documents in a row."""
    return (torch.arange(positions) * 3 // positions).expand(rows, -1).int()


def two_texts():
    """Tokens that differ in the second document alone, and the documents."""
    a, segments = tokens(), documents()
    return a, torch.where(segments == 1, (a + 1) % DENSE.vocabulary, a), segments


def plain(model, row):
    """One row through the model, written out: float64 logits [S, V]."""
    c = model.config
    weight = {name.removesuffix(".weight"): p.double() for name, p in model.named_parameters()}

    def norm(x, scale):
        return x / (x.pow(2).mean(-1, keepdim=True) + c.norm_epsilon).sqrt() * scale

    x = weight["embedding"][row]
    S = len(row)
    distance = torch.arange(S)[:, None] - torch.arange(S)
    near = distance.clamp(0, 15)  # rows are short: each distance has its bucket
    assert S <= 16
    for i in range(c.layers):
        w = {k.removeprefix(f"layers.{i}."): v for k, v in weight.items() if f"layers.{i}." in k}
        h = norm(x, w["attention_norm.scale"])
        parts = []
        for n in range(c.heads):
            part = slice(n * c.head_width, (n + 1) * c.head_width)
            q, k, v = (h @ w[f"attention.{name}"][:, part] for name in ("query", "key", "value"))
            logits = (q @ k.T + w["attention.bias"][n][near]).masked_fill(distance < 0, -math.inf)
            parts.append(logits.softmax(-1) @ v)
        x = x + torch.cat(parts, -1) @ w["attention.output"]
        h = norm(x, w["feed_forward_norm.scale"])
        if i % 2 == 0 and c.experts:
            probability = (h @ w["feed_forward.router.linear"]).softmax(-1)
            y = torch.zeros_like(x)
            for t in range(S):
                top = probability[t].topk(2)
                for gate, e in zip(top.values / top.values.sum(), top.indices, strict=True):
                    inner = (h[t] @ w["feed_forward.experts.w_in"][e]).relu()
                    y[t] = y[t] + gate * (inner @ w["feed_forward.experts.w_out"][e])
        else:
            gate = F.gelu(h @ w["feed_forward.gate"], approximate="tanh")
            y = (gate * (h @ w["feed_forward.up"])) @ w["feed_forward.down"]
        x = x + y
    return norm(x, weight["final_norm.scale"]) @ weight["embedding"].T / c.width**0.5


@pytest.mark.parametrize("config", [DENSE, SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize("backend", ["loop", "cpu", "grouped"])
def test_logits_and_gradients_are_those_of_the_model_written_out(config, backend):
    model = GLaM(config, expert_backend=backend)
    row = tokens(1, 16)[0]
    expected = plain(model, row)
    found = model(row[None])[0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    direction = torch.randn_like(expected)
    parameters = list(model.parameters())
    for (name, _), a, b in zip(
        model.named_parameters(),
        torch.autograd.grad(found, parameters, direction.float()),
        torch.autograd.grad(expected, parameters, direction),
        strict=True,
    ):
        error = float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-3))
        assert error < 1e-4, name


def test_a_document_that_changes_moves_no_other_documents_logits_by_a_bit():
    model = GLaM(DENSE)
    a, b, segments = two_texts()
    before, after = model(a, segments), model(b, segments)
    others = segments != 1
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[~others], after[~others])
    # Without segments the later document does move: the test can fail.
    assert not torch.equal(model(a)[:, 16:], model(b)[:, 16:])


@pytest.mark.parametrize("backend", ["loop", "cpu", "grouped"])
def test_nor_in_a_sparse_model_beyond_the_rounding_of_its_products(backend):
    # Another document changes how many rows an expert has, so how its product is blocked.
    model = GLaM(SPARSE, expert_backend=backend)
    a, b, segments = two_texts()
    others = segments != 1
    torch.testing.assert_close(
        model(a, segments)[others], model(b, segments)[others], rtol=1e-5, atol=1e-5
    )


def test_packed_documents_get_the_logits_that_they_get_alone():
    model = GLaM(SPARSE)
    a = tokens(1)
    packed = model(a, documents(1))
    for start in (0, 8, 16):
        alone = model(a[:, start : start + 8])
        torch.testing.assert_close(packed[:, start : start + 8], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pieces", [[24], [1] * 24, [7, 1, 1, 15]])
def test_the_cache_gives_the_logits_of_the_whole(pieces, dtype):
    config = dataclasses.replace(SPARSE, capacity_factor=1.0, second_expert="random")
    model = GLaM(config, compute_dtype=dtype).eval()
    a = tokens()
    cache = Cache.empty(config.layers)
    with torch.inference_mode():
        whole = model(a)
        found = torch.cat([model(piece, cache=cache) for piece in a.split(pieces, 1)], 1)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(found, whole, rtol=tolerance, atol=tolerance)


def test_rows_padded_on_the_left_generate_as_they_do_alone():
    model = GLaM(SPARSE).eval()
    a = tokens(1, 9)
    padded = F.pad(a, (5, 0))
    segments = F.pad(torch.ones_like(a), (5, 0)).int()
    cache = Cache.empty(SPARSE.layers)
    model(padded[:, :-1], segments[:, :-1], cache)
    found = model(padded[:, -1:], segments[:, -1:], cache)
    torch.testing.assert_close(found, model(a)[:, -1:], rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_gives_the_same_logits():
    a, segments = tokens(), documents()
    with torch.no_grad():
        found = GLaM(SPARSE, attention=AttentionBackend.flex)(a, segments)
        torch.testing.assert_close(found, GLaM(SPARSE)(a, segments), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="grouped products on CUDA need a GPU")
@pytest.mark.parametrize("capacity_factor", [None, 1.25])
def test_on_cuda_grouped_products_and_loop_agree(capacity_factor):
    config = dataclasses.replace(SPARSE, capacity_factor=capacity_factor)
    results = []
    for backend in ("loop", "grouped"):
        model = GLaM(config, compute_dtype=torch.bfloat16, expert_backend=backend).cuda()
        loss = model.loss(tokens().cuda(), tokens(seed=1).cuda(), documents().cuda())
        loss.total.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        results.append((float(loss.total.detach()), gradient))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-2)
    difference = (results[0][1] - results[1][1]).norm() / results[0][1].norm()
    assert float(difference) < 0.05


def test_the_loss_is_the_sum_of_its_parts_and_of_the_layers():
    config = dataclasses.replace(
        SPARSE, router_z_coefficient=0.001, output_z_coefficient=1e-4, balance_coefficient=0.02
    )
    model = GLaM(config)
    a, targets = tokens(), tokens(seed=1)
    targets[0, :5] = IGNORE
    losses = model.loss(a, targets, documents())
    logits = model(a, documents()).double()
    picked = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    z = (logits.logsumexp(-1) ** 2)[targets != IGNORE].sum()
    # The denominator is fixed, padding or not.
    assert float(losses.cross_entropy) == pytest.approx(float(picked.detach()) / 48, rel=1e-5)
    assert float(losses.output_z) == pytest.approx(float(z.detach()) / 48, rel=1e-5)
    _, routings = model.hidden(a, documents())
    assert len(routings) == 2
    of_layers = sum(float(r.balance_loss.detach()) for r in routings)
    assert float(losses.balance) == pytest.approx(of_layers)
    expected = losses.cross_entropy + 1e-4 * losses.output_z
    expected += 0.02 * losses.balance + 0.001 * losses.router_z
    torch.testing.assert_close(losses.total.detach(), expected.detach())
    assert losses.routers.load_E.shape == (2, 8)
    assert losses.routers.dropped.tolist() == [0, 0]
    assert GLaM(DENSE).loss(a, targets).routers is None


def test_a_dropped_token_is_carried_by_the_residual():
    config = dataclasses.replace(SPARSE, layers=1, experts=2, capacity_factor=1.0)
    model = GLaM(config)
    for weight in (model.layers[0].attention.output, model.layers[0].feed_forward.router.linear):
        torch.nn.init.zeros_(weight.weight)
    # All tokens tie and name expert 0 first: of 24, 12 find a slot there, and the first 12 one at
    # expert 1 as well; the rest leave as they came.
    a = tokens(1)
    hidden, (routing,) = model.hidden(a)
    assert float(routing.metrics.dropped) == 0.5
    came = model.final_norm(model.embedding(torch.float32)[a])
    assert torch.equal(hidden[:, 12:], came[:, 12:])
    assert not torch.isclose(hidden[:, :12], came[:, :12]).all(-1).any()


def test_evaluation_drops_nothing_and_draws_nothing():
    config = dataclasses.replace(SPARSE, capacity_factor=1.0, second_expert="random")
    model = GLaM(config)
    generator = torch.Generator().manual_seed(0)
    training = model.loss(tokens(), tokens(seed=1), generator=generator)
    assert (training.routers.dropped > 0).all()
    evaluation = model.eval().loss(tokens(), tokens(seed=1))
    assert (evaluation.routers.dropped == 0).all()
    full = GLaM(SPARSE).loss(tokens(), tokens(seed=1))
    assert torch.equal(evaluation.total, full.total)


def test_random_second_experts_repeat_with_their_generator():
    model = GLaM(dataclasses.replace(SPARSE, second_expert="random"))
    first, again, other = (
        model.loss(tokens(), tokens(), generator=torch.Generator().manual_seed(s)).total
        for s in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_groups_of_rows_make_losses_and_drops_independent_of_the_batch_they_are_in():
    model = GLaM(dataclasses.replace(SPARSE, capacity_factor=1.0, group_rows=1))
    a, targets = tokens(4), tokens(4, seed=1)
    whole = model.loss(a, targets)
    halves = [model.loss(a[i : i + 2], targets[i : i + 2]) for i in (0, 2)]
    assert float(whole.routers.dropped.sum()) > 0
    torch.testing.assert_close(whole.total, (halves[0].total + halves[1].total) / 2)
    with pytest.raises(ValueError, match="group_rows=3"):
        GLaM(dataclasses.replace(SPARSE, group_rows=3)).loss(a, targets)


@pytest.mark.parametrize("config", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_recompute_keeps_less_for_the_way_back_and_gives_the_same_gradients(config):
    config = dataclasses.replace(config, second_expert="random")
    a, targets = tokens(), tokens(seed=1)

    def step(recompute):
        """Bytes of activations kept between forward and backward, then the gradients."""
        model = GLaM(config, recompute=recompute)
        of_weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in of_weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model.loss(a, targets, generator=torch.Generator().manual_seed(5))
        loss.total.backward()
        return sum(kept.values()), {name: p.grad for name, p in model.named_parameters()}

    (plain_bytes, plain), (again_bytes, again) = step(False), step(True)
    # A layer's input and the mask stay, not its queries, keys, values, weights or hidden values.
    assert again_bytes < plain_bytes / 3
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert torch.equal(gradient, again[name]), name


def test_a_token_beyond_the_vocabulary_is_refused_by_its_number():
    a = tokens()
    a[1, 3] = 50
    with pytest.raises(ValueError, match="token 50 is outside the model's vocabulary of 50"):
        GLaM(DENSE)(a)
    a[1, 3] = -1
    with pytest.raises(ValueError, match="token -1"):
        GLaM(DENSE)(a)


@pytest.mark.parametrize("config", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_it_learns(config):
    model = GLaM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    a = tokens(4, 25)
    first = float(model.loss(a[:, :-1], a[:, 1:]).cross_entropy)
    for _ in range(40):
        optimizer.zero_grad()
        loss = model.loss(a[:, :-1], a[:, 1:])
        loss.total.backward()
        optimizer.step()
    assert float(loss.cross_entropy) < 0.3 * first


def test_training_repeats_bit_by_bit():
    def run():
        model = GLaM(dataclasses.replace(SPARSE, capacity_factor=1.25))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for i in range(4):
            optimizer.zero_grad()
            model.loss(tokens(seed=i), tokens(seed=i + 9)).total.backward()
            optimizer.step()
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(run(), run())
