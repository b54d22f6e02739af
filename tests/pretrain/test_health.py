from __future__ import annotations

import numpy as np
import pytest
import torch

from pretrain.health import effective_rank


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rank_of_equal_directions(rank):
    """± unit vectors in ``rank`` directions have that many equal singular values."""
    basis = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0))).Q[:rank]
    rows = torch.cat([basis, -basis]) * 3 + torch.linspace(0, 5, 16)
    assert effective_rank(rows).item() == pytest.approx(rank, rel=1e-4)


def test_definition():
    rows = np.random.default_rng(0).normal(size=(40, 12)) * np.linspace(1, 4, 12)
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    share = values / values.sum()
    assert effective_rank(torch.tensor(rows)).item() == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)


def test_total_collapse():
    assert effective_rank(torch.ones(5, 7)).item() == pytest.approx(1)
