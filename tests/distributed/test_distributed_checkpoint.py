"""What some processes have written any other number goes on from."""

import dataclasses
import functools
import os
import shutil

import distributed
import pytest
import torch
from distributed import CONFIG, learn, make_model, make_optimizer
from safetensors.torch import save
from sharded_asking import asked, write_tasks, write_tokenizer
from training_runs import optimizer_settings

from model.exporting import ExportConfig, export
from model.training.checkpoints import checkpoint, trained
from model.training.checkpoints.background import Writer
from model.training.distributed import processes
from model.training.optimizers import optim
from model.training.train_config import OptimizerName, Schedule
from winnow.filesystem import storage

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


STATE = {
    "model": dataclasses.asdict(CONFIG),
    "boundary": "<eos>",
    "identity": {"data.sequence_length": 16},
}


def fresh(name, columns, parts=1):
    model = make_model(CONFIG, columns, torch.float32, tensor_parallel=parts)
    return model, OPTIMIZERS[name](model)


def weights(model):
    alone = processes.count() == 1
    return {n: p.detach() if alone else p.full_tensor() for n, p in model.named_parameters()}


def write(folder, columns=None, parts=1, end=3):
    """Of each optimizer, the history of the steps after the checkpoint, and the last weights."""
    out = {}
    for name in OPTIMIZERS:
        model, optimizer = fresh(name, columns, parts)
        learn(model, optimizer, range(3))
        checkpoint.save(f"{folder}/{name}", 3, checkpoint.tensors(model, optimizer), STATE)
        out[name] = learn(model, optimizer, range(3, end)), weights(model)
    return out


def write_few_experts(folder):
    """The export of a model whose experts four processes share by two."""
    config = dataclasses.replace(CONFIG, experts=2)
    state = {**STATE, "model": dataclasses.asdict(config)}
    model = make_model(config, None, torch.float32)
    checkpoint.save(f"{folder}/checkpoints", 1, checkpoint.tensors(model), state)
    write_tokenizer(folder)
    export(ExportConfig(str(folder), f"{folder}/exported"))
    return folder / "exported"


def read(folder, columns=None, parts=1):
    """As :func:`write`, but the first steps were another's."""
    out = {}
    for name in OPTIMIZERS:
        model, optimizer = fresh(name, columns, parts)
        checkpoint.materialise(model, optimizer)
        content = checkpoint.tensors(model, optimizer)
        checkpoint.load(checkpoint.resolve(f"{folder}/{name}"), content)
        out[name] = learn(model, optimizer, range(3, 6)), weights(model)
    return out


def in_background(folder, columns=None):
    """The histories of steps during which the checkpoint before them was written, and from it."""
    model, optimizer = fresh("adafactor", columns)
    learn(model, optimizer, range(3))
    writer = Writer(f"{folder}/background", 2, True, 60)
    writer.save(3, checkpoint.tensors(model, optimizer), STATE)
    ahead = learn(model, optimizer, range(3, 6))
    writer.wait()
    checkpoint.load(
        checkpoint.resolve(f"{folder}/background"), checkpoint.tensors(model, optimizer)
    )
    return ahead, learn(model, optimizer, range(3, 6))


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
def results(quick_python, tmp_path_factory):
    """The whole runs of one and of two processes, and what each read of another's."""
    one, two, four = (tmp_path_factory.mktemp(name) for name in ("one", "two", "four"))
    out = {"1": write(one, end=6)}
    few, tasks = (tmp_path_factory.mktemp(name) for name in ("few", "tasks"))
    write_tasks(tasks)
    exported = write_few_experts(few)
    likely, written = ["piqa"], ["piqa", "natural_questions"]
    out["of export"] = {1: asked(exported, tasks, likely)}
    call = functools.partial
    calls = {"2": call(write, two, end=6), "2-2": call(read, two)}
    write_tokenizer(two)
    sharded = {
        name: call(asked, two / "sgd", tasks, names, name)
        for name, names in {"fp32": written, "bf16": likely}.items()
    }
    calls |= {f"asked {name}": ask for name, ask in sharded.items()}
    out |= distributed.run(quick_python, 2, two, calls | {"damage": call(damage_of_one, two)})
    # Written by processes of which two share every head and hidden width, and read by such ones.
    calls = {"writes": call(write, four, 1, 2), "2-4": call(read, two, 2)}
    calls |= {"1-4": call(read, one, 2, 2)}
    calls |= {"compared": call(compared, four), "of two": call(compared, two)}
    calls |= {"asked": call(asked, exported, tasks, likely)}
    calls |= {"background": call(in_background, four, 2)}
    out |= distributed.run(quick_python, 4, four, calls | {"failure": failure_of_one})
    out["of export"][4] = out["asked"]
    out["of checkpoint"] = {name: (ask(), out[f"asked {name}"]) for name, ask in sharded.items()}
    export(ExportConfig(str(two / "sgd"), str(two / "exported")))
    out["exported"] = trained.load(str(two / "sgd"), torch.device("cpu"), torch.float32).model, two
    again = tmp_path_factory.mktemp("two-again")
    out |= distributed.run(quick_python, 2, again, {"4-2": call(read, four)})
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


def test_a_checkpoint_is_written_while_training_goes_on(results):
    ahead, again = results["background"]
    assert ahead == again
    assert len({loss for loss, *_ in ahead}) == 3


def assert_same_answers(found, expected, tolerance):
    for name in ("logprob", "documents"):
        torch.testing.assert_close(
            torch.tensor(found[name]), torch.tensor(expected[name]), rtol=tolerance, atol=tolerance
        )
    assert len(set(expected["logprob"])) > 3
    assert found["files"] == expected["files"] != []


@pytest.mark.parametrize("name", ["of export", "of checkpoint"])
def test_a_sharded_model_answers_as_the_whole(results, name):
    """A sum of some tens of float32 log-probabilities, each of products with a few tens of terms:
    all that differs is the order of sums within the experts' products.
    """
    expected, found = results[name]["fp32"] if name == "of checkpoint" else results[name].values()
    assert_same_answers(found, expected, 1e-5)
    assert found["greedy"] == expected["greedy"]
    assert found["written"] == expected["written"]
    first, *others = found["text"]
    assert [first] == expected["text"]
    assert others == [""] * len(others)
    assert len(others) in (1, 3)
    assert first


def test_processes_write_texts_of_unequal_lengths(results):
    _, found = results["of checkpoint"]["fp32"]
    assert len({len(text) for text in found["written"]}) > 1


def test_a_sharded_model_answers_in_bfloat16(results):
    expected, found = results["of checkpoint"]["bf16"]
    assert_same_answers(found, expected, 2e-2)
    assert expected["logprob"] != results["of checkpoint"]["fp32"][0]["logprob"]


def test_the_export_of_a_sharded_checkpoint_is_what_safetensors_writes(results):
    model, folder = results["exported"]
    weights = {f"glam.{name}": p.detach() for name, p in model.named_parameters()}
    written = (folder / "exported" / "model.safetensors").read_bytes()
    assert written == save(weights, metadata={"format": "pt"})
