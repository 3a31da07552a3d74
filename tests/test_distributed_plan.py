"""The sharding plan against what follows from shapes alone, and on the paper's large sizes."""

import dataclasses

import pytest
import torch

from model import sizes
from model.glam.config import GLaMConfig
from model.plan_sharding import main
from model.sharded_step import plan

pytestmark = pytest.mark.slow

CONFIG = GLaMConfig(
    vocabulary=512, layers=4, width=64, hidden=128, heads=4, head_width=16, experts=8
)
ROWS, LENGTH = 4, 64
SHAPE = {"rows": ROWS, "sequence": LENGTH}


@pytest.fixture(scope="module")
def traced():
    return plan(CONFIG, devices=16, expert_parallel=4, optimizer="adamw", **SHAPE)


def test_state_is_shared_evenly(traced):
    # But for four tables of biases: 4 heads over 16 processes leave the first with a whole head.
    buckets = CONFIG.bias_buckets
    numbers = sizes.count(CONFIG).total / 16 + 4 * (buckets - 4 * buckets / 16)
    assert traced.weights == traced.gradients == 4 * numbers
    assert traced.optimizer == 2 * traced.weights
    assert not torch.distributed.is_initialized()


def test_traffic_follows_from_the_grid(traced):
    M, H, L, inner = CONFIG.width, CONFIG.hidden, CONFIG.layers, CONFIG.heads * CONFIG.head_width
    moe = len(CONFIG.moe_layers)
    # Rows of two choices, in bfloat16, of which all but a quarter go elsewhere, four times.
    rows = 2 * ROWS * LENGTH * M * 2 * 3 / 4
    assert traced.traffic["all-to-all"].received == 4 * moe * rows
    # In bfloat16, all-gathered twice and reduced once in float32: attention and dense layers over
    # 16 processes, experts over 4 of the 16.
    shared = L * (4 * M * inner + CONFIG.heads * CONFIG.bias_buckets) + (L - moe) * 3 * M * H
    experts = moe * 2 * CONFIG.experts // 4 * M * H
    root = CONFIG.vocabulary * M + (2 * L + 1) * M + moe * M * CONFIG.experts
    once = shared * 15 / 16 + experts * 3 / 4
    reduced = 4 * (once + root * 15 / 16)
    # The last layer's weights stay for the way back; biases too small for 16 shards are padded.
    gathered = 2 * 2 * once + 4 * root * 15 / 16
    assert traced.traffic["reduce-scatter"].received == pytest.approx(reduced, rel=0.02)
    assert traced.traffic["all-gather"].received == pytest.approx(gathered, rel=0.02)


def test_peak(traced):
    again = plan(CONFIG, devices=16, expert_parallel=4, optimizer="adamw", recompute=True, **SHAPE)
    more = plan(
        CONFIG, devices=16, expert_parallel=4, optimizer="adamw", rows=2 * ROWS, sequence=LENGTH
    )
    state = traced.weights + traced.gradients + traced.optimizer
    assert state < again.peak < traced.peak < more.peak
    # What grows with tokens doubles, the rest stays.
    growth = more.peak - traced.peak
    assert 0.3 * (traced.peak - state) < growth <= traced.peak - state


def test_impossible(capsys):
    odd = dataclasses.replace(CONFIG, experts=2, width=24, head_width=6)
    with pytest.raises(ValueError, match="must be multiples of 16"):
        plan(odd, devices=32, expert_parallel=2, optimizer="adafactor", **SHAPE)
    with pytest.raises(SystemExit):
        main(["model=glam_1m_8e", "--devices", "6", "--expert-parallel", "4"])
    assert "must divide the 6 processes" in capsys.readouterr().err


def test_command(capsys):
    arguments = ["model=glam_1m_8e", "model.layers=2", "--devices", "8", "--rows", "1"]
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--sequence", "128"])
    assert done.value.code == 0
    lines = capsys.readouterr().out
    assert "fits" in lines
    assert "all-to-all" in lines


@pytest.mark.parametrize(("name", "devices"), [("glam_1b7_64e", 64), ("glam_64b_64e", 1024)])
def test_large_sizes_fit(name, devices):
    """Two and four layers of each are traced; the others need what the second pair adds."""
    config = sizes.load([name])[name]
    two, four = (
        plan(
            dataclasses.replace(config, layers=layers),
            devices=devices,
            expert_parallel=64,
            rows=8,
            sequence=128,
            optimizer="adafactor",
            recompute=True,
        )
        for layers in (2, 4)
    )
    peak = two.peak + (four.peak - two.peak) * (config.layers - 2) / 2
    assert peak < 0.9 * sizes.ACCELERATORS["h100"].memory
    assert (
        four.weights < 1.01 * 4 * sizes.count(dataclasses.replace(config, layers=4)).total / devices
    )
