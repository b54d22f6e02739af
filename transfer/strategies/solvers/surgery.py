"""Changing each gradient by the others, one after the other, in terms of inner products alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

Correction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def random_orders(count: int) -> np.ndarray:
    """For every task the other ones in random order, ``[T, T − 1]``; from torch's generator on the CPU."""
    if count < 2:
        return np.zeros((count, 0), dtype=np.int64)
    orders = torch.stack([torch.randperm(count - 1) for _ in range(count)]).numpy()
    return orders + (orders >= np.arange(count)[:, None])


def operate(gramian: np.ndarray, correction: Correction) -> np.ndarray:
    """Weights of Σ_i g̃_i, where g̃_i starts as g_i and gains a multiple of every other g_j in turn.

    All tasks go through their partners side by side: what happens to one does not depend on what
    happened to others, whose original gradients it meets.

    Args:
        gramian: ``[T, T]``.
        correction: from the present partners j ``[T]``, the inner products g̃_iᵀg_j ``[T]`` and the
            squares ‖g̃_i‖² ``[T]`` to the multiples ``[T]``.

    Returns:
        ``[T]``.
    """
    count = len(gramian)
    tasks = np.arange(count)
    made_of = np.eye(count)  # row i: g̃_i in terms of the g_j
    products = gramian.copy()  # [i, j]: g̃_iᵀg_j
    for partners in random_orders(count).T:
        squares = np.maximum((made_of * products).sum(1), 0.0)
        multiples = correction(partners, products[tasks, partners], squares)
        made_of[tasks, partners] += multiples
        products += multiples[:, None] * gramian[partners]
    return made_of.sum(0)
