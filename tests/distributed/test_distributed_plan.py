"""The sharding plan against what follows from shapes alone, and on the paper's large sizes."""

import dataclasses

import pytest
import torch

from model import sharded_step, sharding_costs, sizes
from model.glam.config import GLaMConfig
from model.plan_sharding import main
from model.sharded_step import Group, Plan, Traffic, plan
from model.sharding_costs import Layout, Machines, Seconds, preference, seconds

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


def test_traffic_of_layers_in_parts(traced):
    parts = 2
    cut = plan(CONFIG, devices=16, expert_parallel=4, optimizer="adamw", tensor_parallel=2, **SHAPE)
    M, H, L, inner = CONFIG.width, CONFIG.hidden, CONFIG.layers, CONFIG.heads * CONFIG.head_width
    moe, tokens = len(CONFIG.moe_layers), ROWS * LENGTH
    assert cut.weights == traced.weights
    assert cut.traffic["all-to-all"].received == traced.traffic["all-to-all"].received
    # Rows of the other process come in and partial sums of own rows come back, in bfloat16, on both
    # ways: one for each token in attention and dense layers, two at the experts. Documents once.
    rows = tokens * (2 * L - moe) + 2 * tokens * moe
    assert cut.traffic["tensor"].received == 4 * rows * M * 2 + 2 * tokens * 4
    assert set(cut.traffic["tensor"].by_group) == {Group(parts, 1)}
    # From the nearest: parts of a layer, then of an expert, then the experts.
    assert set(cut.traffic["all-to-all"].by_group) == {Group(4, 2 * parts)}
    assert set(cut.traffic["all-gather"].by_group) == {Group(16, 1), Group(8, 2), Group(2, parts)}
    # Half of each matrix, gathered over half as many.
    layers = (L * 4 * M * inner + (L - moe) * 3 * M * H) / parts * 7 / 8
    experts = moe * 2 * CONFIG.experts // 4 * M * H / parts * 1 / 2
    root = CONFIG.vocabulary * M + (2 * L + 1) * M + moe * M * CONFIG.experts
    biases = L * CONFIG.heads * CONFIG.bias_buckets
    reduced = 4 * (layers + experts + (root + biases) * 15 / 16)
    assert cut.traffic["reduce-scatter"].received == pytest.approx(reduced, rel=0.02)


def test_a_busy_device_receives_more(traced):
    busy = plan(CONFIG, devices=16, expert_parallel=4, optimizer="adamw", imbalance=2.0, **SHAPE)
    # Of four exchanges two bring rows of others to these experts, two bring rows back.
    even = traced.traffic["all-to-all"].received
    assert busy.traffic["all-to-all"].received == pytest.approx(1.5 * even, rel=0.01)
    assert busy.traffic["all-gather"] == traced.traffic["all-gather"]
    assert busy.peak > traced.peak


def test_groups_make_up_the_traffic(traced):
    for traffic in traced.traffic.values():
        assert sum(traffic.by_group.values()) == pytest.approx(traffic.received)
    assert set(traced.traffic["all-to-all"].by_group) == {Group(4, 4)}
    assert set(traced.traffic["all-gather"].by_group) == {Group(16, 1), Group(4, 1)}


def test_a_deep_model_from_few_layers():
    """Each moment by itself: with many layers another one is the worst than with few."""
    config = dataclasses.replace(CONFIG, layers=8)
    options = {"devices": 8, "expert_parallel": 4, "optimizer": "adafactor", **SHAPE}
    whole, found = plan(config, **options), sharded_step.estimate(config, **options)
    assert found.peaks == pytest.approx(whole.peaks, rel=0.02)
    assert len(set(found.peaks)) == 4
    assert found.weights == pytest.approx(whole.weights)
    for name, traffic in whole.traffic.items():
        assert found.traffic[name].received == pytest.approx(traffic.received, rel=0.01)
        assert found.traffic[name].by_group == pytest.approx(traffic.by_group, rel=0.01)


MACHINES = Machines(
    accelerator=sizes.ACCELERATORS["h100"], devices=16, node=4, nvlink=100.0, network=10.0,
    overlap=0.5, utilisation=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "size", "stride", "expected"),
    [
        ("all-to-all", 4, 1, 1200 / 100),  # within a node
        ("all-to-all", 16, 1, 1200 * 12 / 15 / 10),  # 12 of 15 others are elsewhere
        ("all-to-all", 4, 4, 1200 / 10),  # all of them
        ("tensor", 4, 1, 1200 / 100),
        ("all-gather", 16, 1, 1200 / 40),  # four ports of a node at once
        ("all-gather", 4, 4, 1200 / 10),  # one device of each node
        ("all-gather", 8, 2, 1200 / 20),  # two of each
        ("reduce-scatter", 2, 8, 1200 / 10),
    ],
)
def test_seconds_by_links(name, size, stride, expected):
    traffic = {name: Traffic(1, 1200.0, {Group(size, stride): 1200.0})}
    found = seconds(
        Plan(0, 0, 0, (0,), traffic), CONFIG, MACHINES, tokens=1, sequence=LENGTH, recompute=False,
        imbalance=1.0,
    )  # fmt: skip
    assert found.exchange + found.tensor + found.gather == pytest.approx(expected)
    assert found.all >= found.exchange + found.tensor


def test_work_of_a_busy_device_and_what_it_hides():
    traffic = {"all-gather": Traffic(1, 4e9, {Group(16, 1): 4e9})}
    machines = dataclasses.replace(MACHINES, network=1e9)

    def took(imbalance, recompute):
        return seconds(
            Plan(0, 0, 0, (0,), traffic),
            CONFIG,
            machines,
            tokens=10**9,
            sequence=LENGTH,
            recompute=recompute,
            imbalance=imbalance,
        )

    even, busy, again = took(1.0, False), took(2.0, False), took(1.0, True)
    flops = 2 * 6 * 2 * 2 * CONFIG.width * CONFIG.hidden  # of two layers' two experts
    assert busy.work - even.work == pytest.approx(flops * 1e9 / 989e12)
    assert again.work == pytest.approx(even.work * 4 / 3)
    for of in (even, busy, again):
        assert of.exposed == pytest.approx(max(0.0, of.gather - 0.5 * of.work))
        assert of.all == of.work + of.exchange + of.tensor + of.exposed


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


def test_the_fastest_layout_is_recommended(capsys):
    model = ["model=glam_1m_8e", "model.layers=2", "model.heads=6", "model.head_width=16"]
    main([*model, "--devices", "2", "--recommend", "4"])
    head, _, *rows, last = capsys.readouterr().out.splitlines()
    assert "steps of 4 rows, with 1.6 times" in head
    steps = [float(row.split()[5]) for row in rows]
    assert steps == sorted(steps)
    # All rows fit at once, and then recomputing is in vain.
    grids = [["1", "1"], ["1", "2"], ["2", "1"]]
    assert sorted(row.split()[:4] for row in rows) == [[*grid, "2", "no"] for grid in grids]
    parts, columns, *_ = rows[0].split()
    expected = f"train.tensor_parallel={parts} train.expert_parallel={columns} train.micro_rows=2"
    assert last == f"recommended: {expected} train.recompute=false"


def test_of_equally_fast_layouts_the_one_that_gathers_least_comes_first():
    def layout(step, gather):
        found = Plan(0, 0, 0, (0,), {})
        return Layout(1, 1, 1, False, found, Seconds(step, 0, 0, gather, 0), step)

    fastest, much, least, slow = (
        layout(*of) for of in ((0.6, 9.0), (0.62638, 0.143), (0.62641, 0.042), (0.63, 0.0))
    )
    assert sorted([much, slow, least, fastest], key=preference) == [fastest, least, much, slow]


def test_recomputing_makes_room(monkeypatch):
    """Memory made up: 10 for each row, 2 where layers are recomputed."""
    calls = []

    def estimate(config, *, rows, recompute, **options):
        calls.append((rows, recompute))
        return Plan(0, 0, 0, (rows * (2 if recompute else 10),), {})

    monkeypatch.setattr(sharding_costs, "estimate", estimate)
    machines = dataclasses.replace(MACHINES, devices=1)
    options = {"batch_rows": 8, "sequence": LENGTH, "optimizer": "adamw", "imbalance": 1.0}
    found = list(sharding_costs.layouts(CONFIG, machines, memory=20.0, **options))
    assert [(layout.rows, layout.recompute) for layout in found] == [(2, False), (8, True)]
    # Nothing is sent: a step takes the work on its 8 rows, a third more of it recomputed.
    assert found[1].step == pytest.approx(found[0].step * 4 / 3)
    assert calls == [(8, False), (4, False), (2, False), (8, True)]
    with pytest.raises(ValueError, match="a batch of 8 rows can't be shared by 3"):
        next(
            sharding_costs.layouts(
                CONFIG, dataclasses.replace(MACHINES, devices=3), memory=20.0, **options
            )
        )


@pytest.mark.parametrize(
    ("name", "devices", "parts"), [("glam_1b7_64e", 64, 1), ("glam_64b_64e", 1024, 8)]
)
def test_large_sizes_fit(name, devices, parts):
    """Two and four layers of each are traced; the others need what the second pair adds."""
    config = sizes.load([name])[name]
    two, four = (
        plan(
            dataclasses.replace(config, layers=layers),
            devices=devices,
            expert_parallel=64,
            tensor_parallel=parts,
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
