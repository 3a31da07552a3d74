"""Parameter counts against the paper's table and a closed form; estimates against GLaM's own."""

import functools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model import plan_sharding, sizes
from model.glam.config import GLaMConfig
from model.glam.transformer import GLaM

# Totals and active counts in billions that GLaM's published shapes give by the counting rule:
# dense layers of three matrices, experts of two, a tied embedding. To the digits kept.
DERIVED = {
    "glam_0b1": (0.138, 0.138),
    "glam_0b1_64e": (1.908, 0.152),
    "glam_1b7": (1.676, 1.676),
    "glam_1b7_32e": (13.96, 1.878),
    "glam_1b7_64e": (26.84, 1.879),
    "glam_1b7_128e": (52.6, 1.881),
    "glam_1b7_256e": (104.2, 1.884),
    "glam_8b": (8.72, 8.72),
    "glam_8b_64e": (142.9, 9.80),
    "glam_137b": (137.70, 137.70),
    "glam_64b_64e": (1162, 96.60),
}
LADDER = {"1m": 1e6, "3m": 3e6, "10m": 10e6, "30m": 30e6, "100m": 100e6}


@functools.cache
def config_of(name):
    return sizes.load([name])[name]


def rule(c: GLaMConfig) -> tuple[int, int]:
    attention = c.layers * 4 * c.width * c.heads * c.head_width
    sparse = (c.layers + 1) // 2 if c.experts > 1 else 0
    dense = (c.layers - sparse) * 3 * c.width * c.hidden
    router = sparse * c.width * c.experts
    shared = attention + dense + router + c.vocabulary * c.width
    expert = sparse * 2 * c.width * c.hidden
    return shared + c.experts * expert, shared + 2 * expert


@pytest.mark.parametrize("name", DERIVED)
def test_the_papers_sizes_have_the_derived_counts(name):
    counts = sizes.count(config_of(name))
    for found, expected in zip((counts.total, counts.active), DERIVED[name], strict=True):
        digits = len(str(expected).replace(".", "").lstrip("0"))
        assert float(f"{found / 1e9:.{digits}g}") == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", sizes.names())
def test_counts_follow_the_counting_rule(name):
    config = config_of(name)
    counts = sizes.count(config)
    total, active = rule(config)
    small = config.layers * (2 * config.width + config.heads * 32) + config.width
    assert (counts.total - total, counts.active - active) == (small, small)
    if name in DERIVED:
        assert counts.total == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize("name", DERIVED)
def test_the_papers_own_figures_are_met_but_for_the_named_oddities(name):
    counts, paper = sizes.count(config_of(name)), sizes.PAPER[name]
    tolerance = {"glam_0b1": 0.065, "glam_0b1_64e": 0.055}.get(name, 0.016)
    assert counts.active / 1e9 == pytest.approx(paper.active, rel=tolerance)
    assert name == "glam_1b7_32e" or counts.total / 1e9 == pytest.approx(paper.total, rel=0.065)
    assert (name in ("glam_0b1", "glam_0b1_64e", "glam_1b7_32e", "glam_64b_64e")) == bool(
        paper.oddity
    )


def test_a_trained_size_has_as_many_parameters_as_its_meta_count():
    config = config_of("glam_1m_8e")
    assert sum(p.numel() for p in GLaM(config).parameters()) == sizes.count(config).total


@pytest.mark.parametrize("rung", LADDER)
def test_the_ladder_is_one_dial_and_its_twins_have_equal_active_flops(rung):
    dense = config_of(f"glam_{rung}")
    for experts in (8, 16, 64):
        config = config_of(f"glam_{rung}_{experts}e")
        heads = config.heads
        assert config.experts == experts
        assert (config.width, config.head_width, config.hidden) == (32 * heads, 32, 128 * heads)
        assert config.layers == max(6, heads)
        assert (dense.layers, dense.width, dense.heads) == (config.layers, config.width, heads)
        counts, twin = sizes.count(config), sizes.count(dense)
        assert counts.active - counts.embedding == pytest.approx(LADDER[rung], rel=0.1)
        router = len(config.moe_layers) * config.width * experts
        flops = sizes.training_flops(config, counts, 512) - 6 * router
        assert flops == pytest.approx(sizes.training_flops(dense, twin, 512), rel=0.004)


def test_flops_are_those_of_the_products_that_run():
    config = GLaMConfig(vocabulary=64, layers=2, width=32, hidden=64, heads=2, head_width=16)
    model = GLaM(config)
    S = 16
    tokens = torch.randint(0, 64, (1, S))
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    estimate = S * sizes.training_flops(config, sizes.count(config), S)
    # What runs is the whole square of attention, twice the causal half. Norms are no product, and
    # the bias is one of heads * buckets * distances, made once for the row, forward and back.
    square = 6 * S * config.layers * config.heads * config.head_width * S
    vectors = 6 * S * sum(p.numel() for n, p in model.named_parameters() if "norm" in n)
    bias = 2 * S * config.layers * config.heads * config.bias_buckets
    assert counter.get_total_flops() == estimate + square - vectors - bias


def test_energy_and_days_are_those_reported_for_glam(capsys):
    arguments = "model=glam_64b_64e --accelerator tpu-v4 --devices 1024 --tokens 280e9"
    sizes.main(arguments.split())
    days, energy = capsys.readouterr().out.split()[-2:]
    assert float(days) == pytest.approx(574 / 24, rel=0.02)
    assert float(energy) == pytest.approx(213, rel=0.02)


def test_memory_is_shared_by_all_devices_and_the_experts_by_their_part():
    config, name = config_of("glam_1b7_64e"), "adamw"
    counts = sizes.count(config)

    def need(devices: int, expert_parallel: int) -> sizes.Memory:
        return sizes.memory(
            config,
            counts,
            devices=devices,
            expert_parallel=expert_parallel,
            device_tokens=8192,
            optimizer=name,
        )

    assert need(16, 8).state == pytest.approx(25 * sizes.GIB, rel=0.01)
    assert need(64, 64).state == pytest.approx(need(16, 8).state / 4)
    assert need(64, 64).gathered < need(64, 8).gathered < need(64, 1).gathered
    with pytest.raises(ValueError, match="must divide"):
        need(16, 3)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.widht=3", "widht"),
        ("model.width=100", "multiple of 8"),
        ("model.layers=many", "many"),
        ("model.expert_activation=silu", "silu"),
    ],
)
def test_a_wrong_key_or_value_is_refused_by_name(override, said, capsys):
    with pytest.raises(SystemExit) as ended:
        sizes.main(["model=glam_1m_8e", override])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert said in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model=glam_10"], "there is no model=glam_10: did you mean glam_10m?"),
        (["--devies", "3"], "there is no --devies: did you mean --devices?"),
    ],
)
def test_what_is_unknown_is_refused_with_the_nearest_name(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        sizes.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f": error: {said}\n")


@pytest.mark.parametrize("command", [sizes.main, plan_sharding.main])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--devices", "-4"),
        ("--devices", "0"),
        ("--devices", "2.5"),
        ("--expert-parallel", "0"),
        ("--sequence", "-1"),
    ],
)
def test_a_count_that_is_none_is_refused_by_name(command, option, value, capsys):
    with pytest.raises(SystemExit) as ended:
        command(["model=glam_1m_8e", "--devices", "4", option, value])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].endswith(
        f"argument {option}: must be a whole number, 1 or more, not {value}"
    )
    assert said.out == ""


@pytest.mark.parametrize(
    ("command", "option", "value", "wanted"),
    [
        (sizes.main, "--device-tokens", "0", "a whole number, 1 or more"),
        (sizes.main, "--tokens", "-5", "a number above 0"),
        (sizes.main, "--tokens", "nan", "a number above 0"),
        (sizes.main, "--batch-tokens", "0", "a number above 0"),
        (sizes.main, "--peak-tflops", "0", "a number above 0"),
        (sizes.main, "--memory-gb", "inf", "a number above 0"),
        (sizes.main, "--watts", "-1", "a number above 0"),
        (sizes.main, "--mfu", "0", "a number above 0, at most 1"),
        (sizes.main, "--mfu", "28", "a number above 0, at most 1"),
        (sizes.main, "--pue", "0.9", "a number, 1 or more"),
        (plan_sharding.main, "--rows", "0", "a whole number, 1 or more"),
        (plan_sharding.main, "--link-gb", "0", "a number above 0"),
    ],
)
def test_a_measure_that_is_none_is_refused_by_name(command, option, value, wanted, capsys):
    with pytest.raises(SystemExit) as ended:
        command(["model=glam_1m_8e", "--devices", "4", option, value])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].endswith(f"argument {option}: must be {wanted}, not {value}")
    assert said.out == ""


def test_a_run_is_estimated_where_devices_are_given(capsys):
    sizes.main(["model=glam_1m"])
    assert "days" not in capsys.readouterr().out
    sizes.main(["model=glam_1m", "--devices", "1"])
    assert "days" in capsys.readouterr().out
