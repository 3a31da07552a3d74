"""The whole model: written out plainly, documents apart, the cache, casts, seeds, losses."""

import contextlib
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from model.glam.attention import Cache
from model.glam.config import AttentionBackend, GLaMConfig
from model.glam.loss import IGNORE
from model.glam.parameter import copies
from model.glam.transformer import GLaM

DENSE = GLaMConfig(vocabulary=50, layers=4, width=32, hidden=64, heads=4, head_width=8)
SPARSE = dataclasses.replace(DENSE, experts=8)


def tokens(rows=2, positions=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, DENSE.vocabulary, (rows, positions), generator=generator)


def documents(rows=2, positions=24):
    """Three documents in a row."""
    return (torch.arange(positions) * 3 // positions).expand(rows, -1).int()


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
@pytest.mark.parametrize("backend", ["loop", "padded", "grouped"])
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
    a, segments = tokens(), documents()
    b = a.clone()
    b[:, 8:16] = (b[:, 8:16] + 1) % DENSE.vocabulary
    before, after = model(a, segments), model(b, segments)
    others = segments != 1
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[~others], after[~others])
    # Without segments the later document does move: the test can fail.
    assert not torch.equal(model(a)[:, 16:], model(b)[:, 16:])


@pytest.mark.parametrize("backend", ["loop", "padded", "grouped"])
def test_nor_in_a_sparse_model_beyond_the_rounding_of_its_products(backend):
    # Another document changes how many rows an expert has, so how its product is blocked.
    model = GLaM(SPARSE, expert_backend=backend)
    a, segments = tokens(), documents()
    b = a.clone()
    b[:, 8:16] = (b[:, 8:16] + 1) % DENSE.vocabulary
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
    assert float(losses.balance) == pytest.approx(
        sum(float(r.balance_loss.detach()) for r in routings)
    )
    expected = (
        losses.cross_entropy
        + 1e-4 * losses.output_z
        + 0.02 * losses.balance
        + 0.001 * losses.router_z
    )
    torch.testing.assert_close(losses.total.detach(), expected.detach())
    assert losses.routers.load_E.shape == (2, 8)
    assert losses.routers.dropped.tolist() == [0, 0]
    other = model.loss(a, targets, documents(), denominator=torch.tensor(43.0))
    assert float(other.cross_entropy) == pytest.approx(float(picked.detach()) / 43, rel=1e-5)
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


@pytest.mark.parametrize("kept", [False, True])
def test_bfloat16_is_near_float32_with_float32_gradients_and_router(kept):
    a, targets = tokens(), tokens(seed=1)
    losses, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        # A seed with which rounding sends no token to another expert: that moves gradients further.
        model = GLaM(SPARSE, compute_dtype=dtype, seed=4)
        with copies(model) if kept else contextlib.nullcontext():
            loss = model.loss(a, targets)
            loss.total.backward()
            hidden, routings = model.hidden(a)
        losses.append(float(loss.total.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())
        assert hidden.dtype == dtype
        assert routings[0].gates_CT.dtype == routings[0].balance_loss.dtype == torch.float32
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 0.05


@pytest.mark.parametrize("fused", [False, True])
def test_steps_with_copies_are_bit_by_bit_those_without(fused):
    models = [GLaM(SPARSE, compute_dtype=torch.bfloat16) for _ in range(2)]
    for model, context in zip(models, (contextlib.nullcontext, copies), strict=True):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
        for _ in range(3):
            with context(model):
                for seed in (1, 2):
                    model.loss(tokens(), tokens(seed=seed)).total.backward()
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(a, b)


def test_copies_are_made_once_even_in_inference_and_gone_afterwards():
    model = GLaM(DENSE, compute_dtype=torch.bfloat16)
    query = model.layers[0].attention.query
    with copies(model):
        with torch.inference_mode():
            model(tokens())
        first = query(torch.bfloat16).data_ptr()
        model.loss(tokens(), tokens()).total.backward()
        assert query(torch.bfloat16).data_ptr() == first
    with torch.no_grad():
        query.weight += 1
    torch.testing.assert_close(query(torch.bfloat16), query.weight.bfloat16())


def test_trap_fused_optimizers_do_not_move_a_weights_version():
    # If this fails, copies could look after themselves.
    weight = torch.nn.Parameter(torch.ones(4))
    weight.grad = torch.ones(4)
    torch.optim.AdamW([weight], fused=True).step()
    assert weight._version == 0
    assert not (weight == 1).any()


def test_initialisation_has_the_stated_spreads():
    c = dataclasses.replace(
        SPARSE, layers=2, vocabulary=500, width=128, hidden=256, heads=4, head_width=32
    )
    attention = {
        "attention_norm.scale": None,  # all 1
        "attention.query": (128 * 32) ** -0.5,
        "attention.key": 128**-0.5,
        "attention.value": 128**-0.5,
        "attention.output": 128**-0.5,
        "attention.bias": (4 * 32) ** -0.5,
        "feed_forward_norm.scale": None,
    }
    sparse = {
        "feed_forward.router.linear": 128**-0.5,
        "feed_forward.experts.w_in": 128**-0.5,
        "feed_forward.experts.w_out": 256**-0.5,
    }
    dense = {
        "feed_forward.gate": 128**-0.5,
        "feed_forward.up": 128**-0.5,
        "feed_forward.down": 256**-0.5,
    }
    spreads = {"embedding": 1.0, "final_norm.scale": None}
    for i, feed_forward in enumerate((sparse, dense)):
        spreads |= {f"layers.{i}.{name}": s for name, s in (attention | feed_forward).items()}
    found = {name: p.detach() for name, p in GLaM(c).named_parameters()}
    assert found.keys() == {f"{name}.weight" for name in spreads}
    for name, spread in spreads.items():
        parameter = found[f"{name}.weight"]
        if spread is None:
            assert (parameter == 1).all(), name
            continue
        tolerance = 8 / parameter.numel() ** 0.5
        assert float(parameter.std()) == pytest.approx(spread, rel=tolerance), name
        reach = float(parameter.abs().max()) / spread
        uniform = "feed_forward" in name
        assert (1.7 < reach <= 3**0.5 + 1e-6) if uniform else (reach > 2), name


def test_seeds_repeat_and_twins_share_what_they_have_in_common():
    a, b, c = GLaM(SPARSE, seed=1), GLaM(SPARSE, seed=1), GLaM(SPARSE, seed=2)
    dense = dict(GLaM(DENSE, seed=1).named_parameters())
    for (name, p), (_, q), (_, r) in zip(
        a.named_parameters(), b.named_parameters(), c.named_parameters(), strict=True
    ):
        assert torch.equal(p, q)
        assert "norm" in name or not torch.equal(p, r)
        if name in dense:
            assert torch.equal(p, dense[name])


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
