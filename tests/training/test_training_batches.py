"""Batches made ahead are the same batches."""

import threading

import pytest
import torch

from model.data.stream import Batch
from model.training.transfers import Batches

CPU = torch.device("cpu")


def stream(threads, broken=()):
    def make(number):
        threads.append((number, threading.current_thread() is threading.main_thread()))
        if number in broken:
            raise ValueError(f"batch {number} is broken")
        return Batch(*(torch.full((2, 3), number + i) for i in (0, 100, 200)))

    return make


@pytest.mark.parametrize("ahead", [False, True])
def test_any_order_gives_the_batches_asked_for(ahead):
    made = []
    batches = Batches(stream(made), CPU, 6, ahead)
    for number in (0, 1, 2, 4, 2, 3, 4, 5):
        found = batches(number)
        assert [int(column.unique()) for column in found] == [number, number + 100, number + 200]
    assert max(number for number, _ in made) == 5
    in_time = [number for number, in_main in made if not in_main]
    assert (len(in_time) > 0) == ahead
    assert all(in_main for _, in_main in made) == (not ahead)


def test_an_error_is_raised_where_the_batch_is_asked_for():
    batches = Batches(stream([], broken=[2]), CPU, 6, ahead=True)
    batches(0)
    batches(1)
    with pytest.raises(ValueError, match="batch 2 is broken"):
        batches(2)
