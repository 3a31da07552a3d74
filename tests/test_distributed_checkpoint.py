"""What some processes have written any other number goes on from."""

import functools
import os
import shutil

import distributed
import pytest
import torch
from distributed import CONFIG, learn, make_model, make_optimizer
from training_runs import optimizer_settings

from model.training import checkpoint, optim, processes
from model.training.train_config import OptimizerName, Schedule
from winnow import storage

pytestmark = pytest.mark.slow

OPTIMIZERS = {
    "sgd": make_optimizer,
    **{
        name.value: functools.partial(
            optim.build_optimizer,
            optimizer_settings(name, learning_rate=0.01, schedule=Schedule.constant),
        )
        for name in OptimizerName
    },
}


def fresh(name, columns):
    model = make_model(CONFIG, columns, torch.float32)
    return model, OPTIMIZERS[name](model)


def weights(model):
    alone = processes.count() == 1
    return {n: p.detach() if alone else p.full_tensor() for n, p in model.named_parameters()}


def all_steps(columns=None):
    """Of each optimizer, the history of the steps after the checkpoint, and the last weights."""
    out = {}
    for name in OPTIMIZERS:
        model, optimizer = fresh(name, columns)
        out[name] = learn(model, optimizer, range(6))[3:], weights(model)
    return out


def write(folder, columns=None):
    for name in OPTIMIZERS:
        model, optimizer = fresh(name, columns)
        learn(model, optimizer, range(3))
        checkpoint.save(f"{folder}/{name}", 3, checkpoint.tensors(model, optimizer), {})


def read(folder, columns=None):
    """As :func:`all_steps`, but the first steps were another's."""
    out = {}
    for name in OPTIMIZERS:
        model, optimizer = fresh(name, columns)
        checkpoint.materialise(model, optimizer)
        content = checkpoint.tensors(model, optimizer)
        checkpoint.load(checkpoint.resolve(f"{folder}/{name}"), content)
        out[name] = learn(model, optimizer, range(3, 6)), weights(model)
    return out


def compared(folder):
    """By process, the files that it compared with their checksums."""
    names, whole = [], storage.checksum

    def checksum(path):
        names.append(os.path.basename(path))
        return whole(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "checksum", checksum)
        checkpoint.verify(f"{folder}/sgd/step_000000003")
    return processes.together(lambda: sorted(names))


def damage_of_one(folder):
    """What each process says of a checkpoint with one file that has changed."""
    copy = f"{folder}/damaged"
    if processes.is_first():
        shutil.copytree(f"{folder}/sgd", copy)
        path = f"{copy}/step_000000003/__1_0.distcp"
        with open(path, "r+b") as file:
            file.write(b"x")
    processes.together(lambda: None)
    try:
        checkpoint.newest(copy)
        said = "intact"
    except ValueError as error:
        said = str(error)
    return processes.together(lambda: said)


def failure_of_one():
    """What each process raises where the last one can't write."""

    def call():
        if processes.rank() == processes.count() - 1:
            raise OSError(28, "No space left on device")

    try:
        processes.together(call)
        said = "nothing"
    except OSError as error:
        said = str(error)
    return processes.together(lambda: said)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The undisturbed runs of one and of two processes, and what each read of another's."""
    one, two, four = (tmp_path_factory.mktemp(name) for name in ("one", "two", "four"))
    out = {"1": all_steps()}
    write(one)
    call = functools.partial
    calls = {"2": all_steps, "writes": call(write, two), "2-2": call(read, two)}
    out |= distributed.run(2, two, calls | {"damage": call(damage_of_one, two)})
    calls = {"writes": call(write, four, 2), "2-4": call(read, two, 2), "1-4": call(read, one)}
    calls |= {"compared": call(compared, four), "of two": call(compared, two)}
    out |= distributed.run(4, four, calls | {"failure": failure_of_one})
    again = tmp_path_factory.mktemp("two-again")
    out |= distributed.run(2, again, {"4-2": call(read, four)})
    return out | {"2-1": read(two), "4-1": read(four)}


def test_each_process_compares_what_it_wrote(results):
    own = [[f"__{rank}_0.distcp"] for rank in range(4)]
    assert results["compared"] == [[".metadata", *own[0]], *own[1:]]
    assert results["of two"] == [[".metadata", *own[0]], own[1], [], []]


def test_all_learn_what_one_found(results):
    assert len(results["damage"]) == 2
    assert all("every checkpoint in" in said for said in results["damage"])
    assert results["failure"] == ["[Errno 28] No space left on device"] * 4


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("way", ["2", "2-2", "2-4", "1-4", "4-2", "2-1", "4-1"])
def test_any_number_reads_what_any_number_wrote(results, way, name):
    (history, _), (expected, _) = results[way][name], results["1"][name]
    torch.testing.assert_close(torch.tensor(history), torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_same_number_goes_on_bit_for_bit(results, name):
    (history, last), (expected, expected_last) = results["2-2"][name], results["2"][name]
    assert history == expected
    assert all(torch.equal(last[key], expected_last[key]) for key in expected_last)
