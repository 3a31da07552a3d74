"""Two and four processes learn what one does; each known trap has a control that falls into it."""

import dataclasses
import functools
from unittest import mock

import distributed
import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional_collectives
from adafactor_one_by_one import OneByOne
from counting import CountingOperations
from distributed import CONFIG, learn, make_model, make_optimizer
from training_runs import optimizer_settings

from model.glam.experts import BACKENDS
from model.glam.transformer import Experts
from model.training import evaluation
from model.training.distributed import parallel, processes
from model.training.distributed.all_to_all import AllToAll, gather, scatter
from model.training.optimizers import optim
from model.training.train_config import Schedule

pytestmark = pytest.mark.slow

STEPS = range(3)
DROPPING = dataclasses.replace(CONFIG, capacity_factor=1.0)
DENSE = dataclasses.replace(CONFIG, experts=0)
ADAFACTOR = optimizer_settings("adafactor", schedule=Schedule.constant)


def train(config, expert_parallel=None, dtype=torch.float32, parts=1):
    model = make_model(config, expert_parallel, dtype, tensor_parallel=parts)
    return learn(model, make_optimizer(model), STEPS)


def dropless():
    world = processes.count()
    return {columns: train(CONFIG, columns) for columns in (1, 2, 4) if columns <= world}


def dropping():
    return train(DROPPING)


def dense():
    return train(DENSE)


def bfloat16():
    """By the number of parts that heads and hidden widths are cut into."""
    return {parts: train(CONFIG, None, torch.bfloat16, parts) for parts in (1, 2)}


def recompute():
    model = make_model(CONFIG, None, torch.float32, recompute=True)
    return learn(model, make_optimizer(model), STEPS)


def one_head():
    """Adafactor on a table of biases that is [1, buckets]: all but one have none of it."""
    model = make_model(dataclasses.replace(CONFIG, heads=1, head_width=16), None, torch.float32)
    return learn(model, optim.build_optimizer(ADAFACTOR, model), STEPS)


def adafactor():
    """Losses, and how many collectives a step makes for them, on the grids that there are."""
    found = {}
    for columns in (1, 2, 4):
        if columns <= processes.count():
            model = make_model(CONFIG, columns, torch.float32)
            optimizer = optim.build_optimizer(ADAFACTOR, model)
            history = learn(model, optimizer, range(3))
            model.loss(*distributed.batch(3)).total.backward()
            with CountingOperations("c10d", "_c10d_functional") as counting:
                optimizer.step()
            found[columns] = history, counting.count
    return found


def clipped():
    """By grid, norms of the gradients before and after, and of each weight's."""
    found = {}
    for columns, parts in ((2, 1), (1, 2), (2, 2)):
        if columns * parts <= processes.count() or processes.count() == 1:
            model = make_model(CONFIG, columns, torch.float32, tensor_parallel=parts)
            model.loss(*distributed.batch(0)).total.backward()
            before = optim.gradient_norm(model)
            optim.clip(model, before, 0.25)
            norms = [processes.total_norm([parameter.grad]) for parameter in model.parameters()]
            found[f"{columns} x {parts}"] = torch.stack(
                [before, optim.gradient_norm(model), *norms]
            )
    return found


def adafactor_one_by_one():
    model = make_model(CONFIG, min(2, processes.count()), torch.float32)
    return learn(model, OneByOne(model.parameters(), 0.01), range(3))


def in_parts():
    """Heads and hidden widths cut in two, by grid: losses and gradients, layers computed twice;
    then likelihoods, which leave gathered weights behind; then Adafactor.
    """
    found = {}
    for columns in (1, 2):
        if 2 * columns <= processes.count() or processes.count() == 1:
            model = make_model(CONFIG, columns, torch.float32, True, tensor_parallel=2)
            history = learn(model, make_optimizer(model), range(3))
            found[columns] = history, nats(model)
            parallel.reshard(model)
            history += learn(model, optim.build_optimizer(ADAFACTOR, model), range(3, 5))
    return found


@torch.no_grad()
def nats(model):
    """The mean over all processes of minus the logarithm of the targets' probabilities."""
    tokens, targets, segments = distributed.batch(7)
    hidden, _ = model.eval().hidden(tokens, segments)
    of_each = evaluation.token_nats(model, hidden.flatten(0, 1), targets.flatten())
    model.train()
    return float(processes.mean({"nats": of_each.mean()})["nats"])


def part_too_large():
    """The norm of the first gradients if FSDP divided those of parts by its own group alone."""
    model = make_model(CONFIG, 2, torch.float32, tensor_parallel=2)
    model.layers[1].feed_forward.set_gradient_divide_factor(processes.count() // 2)
    return learn(model, make_optimizer(model), range(1))[0][2]


def all_to_first():
    """Every token to experts 0 and 1, which the first process holds: the others get no row."""
    model = make_model(CONFIG, None, torch.float32)
    for name, parameter in model.named_parameters():
        if "router" in name:
            torch.nn.init.zeros_(parameter.to_local() if processes.count() > 1 else parameter)
    return learn(model, make_optimizer(model), range(2))


def first_weights():
    return {
        name: p.full_tensor() if processes.count() > 1 else p.detach()
        for name, p in make_model(CONFIG, 2, torch.float32).named_parameters()
    }


def first_norm(expert_parallel, change):
    """Of the gradients of the first step, after a change to how experts are sharded."""
    model = make_model(CONFIG, expert_parallel, torch.float32)
    for module in model.modules():
        if isinstance(module, Experts):
            change(module)
    return learn(model, make_optimizer(model), range(1))[0][2]


def default_divisor():
    return first_norm(2, lambda experts: experts.set_gradient_divide_factor(1))


def divided_twice():
    return first_norm(2, lambda experts: experts.set_force_sum_reduction_for_comms(True))


def own_divisor():
    return message(
        RuntimeError,
        lambda: first_norm(2, lambda e: e.set_force_sum_reduction_for_comms(False)),
    )


def norm_by_torch():
    model = make_model(CONFIG, 2, torch.float32)
    model.loss(*distributed.batch(0)).total.backward()
    return message(RuntimeError, lambda: torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))


def exchanged_counts():
    """What process r has for expert f of process p is 100 r + 10 p + f."""
    world = processes.count()
    counts = 100 * processes.rank() + 10 * torch.arange(world)[:, None] + torch.arange(3)
    alone, _ = dist.new_subgroups(1)
    found = AllToAll(BACKENDS["cpu"], dist.group.WORLD, alone).exchange_counts(counts)
    return type(found[0]).__name__, *found


def uneven_rows():
    """Process r has r rows of r: gathered, their gradient where each process multiplies all rows by
    r + 1, and the sums of what all have for these rows. By process.
    """
    world, rank = processes.count(), processes.rank()
    rows = torch.full((rank, 2), float(rank), requires_grad=True)
    every = gather(rows, dist.group.WORLD, range(world))
    (every * (rank + 1)).sum().backward()
    sums = scatter(every * (rank + 1), dist.group.WORLD, range(world))
    return processes.together(lambda: [x.tolist() for x in (every, rows.grad, sums)])


def equal_rows():
    """The rows of all, by each of the names that torch has for it."""
    row = torch.full((1, 2), float(processes.rank()))
    found = [gather(row, dist.group.WORLD)]
    with mock.patch.object(dist, "all_gather_single", None, create=True):
        return [*found, gather(row, dist.group.WORLD)]


def functional_counts():
    counts = torch.arange(2 * processes.count())
    found = functional_collectives.all_to_all_single(counts, None, None, dist.group.WORLD)
    pointer = found.data_ptr()
    return type(found).__name__, pointer, found.wait().tolist()


def impossible_grids():
    six = dataclasses.replace(CONFIG, experts=6)
    grids = [(CONFIG, 3), (six, 4), (CONFIG, 1, 3), (CONFIG, 1, 4), (CONFIG, 4, 2)]
    return [
        message(ValueError, functools.partial(parallel.make_grid, config, "cpu", *shape))
        for config, *shape in grids
    ]


def message(kind, function):
    try:
        function()
    except kind as error:
        return str(error)
    raise AssertionError("nothing was raised")


def by_name(*functions):
    return {function.__name__: function for function in functions}


OWN = (exchanged_counts, functional_counts, equal_rows, uneven_rows)
SAME = by_name(
    dropless,
    dropping,
    dense,
    bfloat16,
    recompute,
    one_head,
    adafactor,
    adafactor_one_by_one,
    clipped,
    in_parts,
    all_to_first,
    first_weights,
)


@pytest.fixture(scope="module")
def one():
    return {name: function() for name, function in SAME.items()}


@pytest.fixture(scope="module")
def two(quick_python, tmp_path_factory):
    traps = by_name(default_divisor, divided_twice, norm_by_torch, *OWN)
    return distributed.run(quick_python, 2, tmp_path_factory.mktemp("two"), SAME | traps)


@pytest.fixture(scope="module")
def four(quick_python, tmp_path_factory):
    # The last one leaves a collective half done.
    traps = by_name(*OWN, impossible_grids, part_too_large, own_divisor)
    return distributed.run(quick_python, 4, tmp_path_factory.mktemp("four"), SAME | traps)


@pytest.fixture(params=["two", "four"])
def several(request):
    return request.getfixturevalue(request.param)


def assert_same(history, expected, tolerance=2e-6):
    torch.testing.assert_close(
        torch.as_tensor(history), torch.as_tensor(expected), rtol=tolerance, atol=tolerance
    )


def test_same_weights_to_start_with(one, several):
    assert several["first_weights"].keys() == one["first_weights"].keys()
    for name, expected in one["first_weights"].items():
        assert torch.equal(several["first_weights"][name], expected)


def test_same_losses_and_gradients(one, several):
    for history in several["dropless"].values():
        assert_same(history, one["dropless"][1])
    assert_same(several["dropping"], one["dropping"])
    assert_same(several["dense"], one["dense"])
    assert_same(several["recompute"], one["dropless"][1])
    assert one["recompute"] == one["dropless"][1]
    # The cases differ from one another, so that agreement says something.
    assert abs(one["dropless"][1][-1][2] - one["dropping"][-1][2]) > 1e-3


def test_a_weight_with_one_row(one, several):
    assert_same(several["one_head"], one["one_head"], 1e-5)


def test_adafactor_in_a_batch(one, several):
    (expected, _), *_ = one["adafactor"].values()
    assert_same(one["adafactor_one_by_one"], expected, 1e-5)
    assert_same(several["adafactor_one_by_one"], expected, 1e-5)
    world = max(several["adafactor"])
    for columns, (history, collectives) in several["adafactor"].items():
        assert_same(history, expected, 1e-5)
        # All tensors' norms; columns' sums over all processes and, where those are fewer, over
        # the ones that share an expert.
        assert collectives == (2 if columns in (1, world) else 3)


def test_heads_and_hidden_widths_in_parts(one, several):
    (expected, expected_nats), *_ = one["in_parts"].values()
    assert len(expected) == 5
    for history, nats in several["in_parts"].values():
        assert_same(history, expected, 1e-5)
        assert nats == pytest.approx(expected_nats, rel=1e-5)


def test_clipping_by_the_norm_of_all(one, several):
    expected, *_ = one["clipped"].values()
    assert float(expected[1]) == pytest.approx(0.25, rel=1e-4)
    assert float(expected[0]) > 1
    assert {"2 x 1", "1 x 2"} <= several["clipped"].keys()
    for norms in several["clipped"].values():
        assert_same(norms, expected)


def test_a_process_without_rows(one, several):
    assert_same(several["all_to_first"], one["all_to_first"])


def test_bfloat16(one, several):
    """What is gathered is what one process casts: the first loss is the same to float32's last
    digits, and gradients differ as their sums are rounded in other places.
    """
    expected, in_float32 = one["bfloat16"][1], one["dropless"][1]
    assert several["bfloat16"][1][0][0] == pytest.approx(expected[0][0], rel=1e-5)
    assert several["bfloat16"][1][0][0] != pytest.approx(in_float32[0][0], rel=1e-5)
    for history in several["bfloat16"].values():
        assert_same(history, expected, 2e-2)


def test_scale_of_gradients_of_parts_and_experts(one, two, four):
    assert four["part_too_large"] > one["in_parts"][1][0][0][2] * 1.01
    expected = one["dropless"][1][0][2]
    assert two["default_divisor"] > expected * 1.01
    # Faults of torch 2.13: where one of these fails it is mended, and what steps around it can go.
    assert two["divided_twice"] < expected * 0.99
    assert "PREMUL_SUM" in four["own_divisor"]


def test_counts_are_there_when_they_are_read(several):
    kind, there, sent, received, shared = several["exchanged_counts"]
    world = len(there)
    assert kind == "Tensor"
    assert there.tolist() == [[100 * r + f for f in range(3)] for r in range(world)]
    assert sent == [30 * p + 3 for p in range(world)]
    assert received == [300 * r + 3 for r in range(world)]
    assert shared == [sum(received)]
    # Where this fails, functional collectives have come to give plain tensors.
    kind, pointer, counts = several["functional_counts"]
    assert kind == "AsyncCollectiveTensor"
    assert pointer == 0
    assert counts == [0, 1] * world


def test_processes_with_unequal_numbers_of_rows(several):
    world = len(several["uneven_rows"])
    factors = world * (world + 1) / 2
    for rank, (every, gradient, sums) in enumerate(several["uneven_rows"]):
        assert every == [[r, r] for r in range(world) for _ in range(r)]
        assert gradient == [[factors, factors]] * rank
        assert sums == [[factors * rank, factors * rank]] * rank


def test_processes_with_as_many_rows(several):
    every = [[rank, rank] for rank in range(len(several["uneven_rows"]))]
    assert [rows.tolist() for rows in several["equal_rows"]] == [every, every]


def test_torch_cannot_combine_norms_over_meshes(two):
    assert "mesh" in two["norm_by_torch"]


def test_impossible_grids(four):
    said = [
        "expert_parallel=3 must divide the 4 processes",
        "experts=6 can't be shared by 4",
        "tensor_parallel=3 must divide the 4 processes",
        "heads=2 can't be cut into train.tensor_parallel=4",
        "expert_parallel=4 must divide the 4 processes, 2 for each part",
    ]
    for expected, found in zip(said, four["impossible_grids"], strict=True):
        assert expected in found
