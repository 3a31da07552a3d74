"""Weights: initial values, casts that are kept for a step, seeds."""

import contextlib
import dataclasses

import pytest
import torch
from glam_models import DENSE, SPARSE, tokens

from model.glam.parameter import copies
from model.glam.transformer import GLaM


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
    ones = dict.fromkeys(["attention_norm.scale", "feed_forward_norm.scale"])
    attention = {"query": (128 * 32) ** -0.5, "key": 128**-0.5, "value": 128**-0.5}
    attention |= {"output": 128**-0.5, "bias": (4 * 32) ** -0.5}
    sparse = {"router.linear": 128**-0.5, "experts.w_in": 128**-0.5, "experts.w_out": 256**-0.5}
    dense = {"gate": 128**-0.5, "up": 128**-0.5, "down": 256**-0.5}
    spreads = {"embedding": 1.0, "final_norm.scale": None}  # all 1
    for i, feed_forward in enumerate((sparse, dense)):
        layer = ones | {f"attention.{name}": s for name, s in attention.items()}
        layer |= {f"feed_forward.{name}": s for name, s in feed_forward.items()}
        spreads |= {f"layers.{i}.{name}": s for name, s in layer.items()}
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
