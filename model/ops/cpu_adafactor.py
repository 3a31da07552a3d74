"""Adafactor's passes over a weight on a CPU, for :mod:`model.training.optimizers.adafactor`.

The order of sums does not depend on the number of threads. Parameter and gradient are [..., R, C],
float32 and contiguous: R rows of C columns.
"""

import numpy as np
import torch
from torch import Tensor

from model.ops import cpu_kernels
from model.ops.cpu_dtypes import ZERO
from model.ops.cpu_kernels import Array, compiled, in_threads

PART = 64
"""Rows whose squares are summed by column at once."""


def squares(parameter: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, float]:
    """Sums of squares: the gradient's by row [..., R, 1] and column [..., 1, C], the weight's."""
    *_, rows, columns = grad.shape
    parts = -(-rows // PART)
    matrices = grad.numel() // (rows * columns)
    of_rows, of_parameter = torch.empty(2, matrices * rows)
    of_columns = torch.zeros(matrices, parts, columns)
    in_threads(
        _squares, matrices * parts, cpu_kernels.rows(parameter), cpu_kernels.rows(grad), rows,
        of_rows.numpy(), of_columns.view(-1, columns).numpy(), of_parameter.numpy(),
    )  # fmt: skip
    return (
        of_rows.view(*grad.shape[:-1], 1),
        of_columns.sum(1).view(*grad.shape[:-2], 1, columns),
        float(of_parameter.sum(dtype=torch.float64)),
    )


@compiled
def _squares(
    start: int, stop: int, parameters: Array, grads: Array, rows: int, of_rows: Array,
    of_columns: Array, of_parameter: Array,
) -> None:  # fmt: skip
    parts = (rows + PART - 1) // PART
    for part in range(start, stop):
        of_column = of_columns[part]
        begin = part // parts * rows + part % parts * PART
        end = min(begin + PART, (part // parts + 1) * rows)
        for r in range(begin, end):
            parameter, grad = parameters[r], grads[r]
            total = total_of_parameter = ZERO
            for c in range(len(grad)):
                square = grad[c] * grad[c]
                total += square
                of_column[c] += square
                total_of_parameter += parameter[c] * parameter[c]
            of_rows[r] = total
            of_parameter[r] = total_of_parameter


def update_square(grad: Tensor, row: Tensor, column: Tensor, most: float) -> float:
    """The sum of squares of the update, ``grad * min(row * column, most)``.

    ``row`` is float32 [..., R, 1], ``column`` float32 [..., 1, C].
    """
    of_rows = torch.empty(row.numel())
    in_threads(
        _update_square, len(of_rows), cpu_kernels.rows(grad), row.view(-1).numpy(),
        cpu_kernels.rows(column), np.float32(most), of_rows.numpy(),
    )  # fmt: skip
    return float(of_rows.sum(dtype=torch.float64))


@compiled
def _update_square(
    start: int, stop: int, grads: Array, of_row: Array, columns: Array, most: np.float32, out: Array
) -> None:
    rows = len(grads) // len(columns)
    for r in range(start, stop):
        grad, column, row = grads[r], columns[r // rows], of_row[r]
        total = ZERO
        for c in range(len(grad)):
            inverse = row * column[c]
            update = grad[c] * (most if inverse > most else inverse)
            total += update * update
        out[r] = total


def update_(
    parameter: Tensor, grad: Tensor, row: Tensor, column: Tensor, most: float, rate: float
) -> None:
    """Subtract ``rate`` times the update; arguments as in :func:`update_square`."""
    in_threads(
        _update, row.numel(), cpu_kernels.rows(parameter), cpu_kernels.rows(grad),
        row.view(-1).numpy(), cpu_kernels.rows(column), np.float32(most), np.float32(rate),
    )  # fmt: skip


@compiled
def _update(
    start: int, stop: int, parameters: Array, grads: Array, of_row: Array, columns: Array,
    most: np.float32, rate: np.float32,
) -> None:  # fmt: skip
    rows = len(grads) // len(columns)
    for r in range(start, stop):
        parameter, grad, column, row = parameters[r], grads[r], columns[r // rows], of_row[r]
        for c in range(len(grad)):
            inverse = row * column[c]
            parameter[c] -= rate * grad[c] * (most if inverse > most else inverse)
