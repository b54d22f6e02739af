"""Linear support vector machines for many labels of the same features."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from pretrain.evaluation.samples import chunks, unit_rows

Product = Callable[[Tensor], Tensor]


@torch.no_grad()
def train_svms(features: np.ndarray, positive: np.ndarray, weights: np.ndarray, *, tolerance: float = 1e-9,
               steps: int = 100, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """One support vector machine for each label, with L2-normalised features, trained to the optimum.

    What is minimised for a label is that of LIBLINEAR's primal solver and of scikit-learn's ``LinearSVC`` with its
    defaults (squared hinge loss, L2 regularisation, intercept scaling 1, so that the bias is regularised too):

        (|w|² + b²) / 2 + Σ cᵢ max(0, 1 − yᵢ (w·xᵢ + b))²,    yᵢ = ±1

    by Newton's method with conjugate gradients (Keerthi and DeCoste, 2005; Lin et al., 2008), of all labels at once:
    each product with the features is one matrix product for all. The objective minus half the squared norm of the
    weights is convex, so that half the squared gradient bounds how far a label is from its optimum: it is done when
    that bound is below ``tolerance`` times its objective.

    Args:
        features: float ``[N, C]``, of any length; read a chunk at a time, computed with in float64.
        positive: bool ``[N, A]``.
        weights: cᵢ, float ``[N, A]``: C times the weight of the class; 0 leaves an image out.
        tolerance: relative distance to the optimum.
        steps: Newton steps at most.
        device: where it is computed.

    Returns:
        Weights float64 ``[C, A]`` and biases ``[A]``.

    Raises:
        UserError: it does not converge.
    """
    sign = torch.from_numpy(np.where(positive, 1.0, -1.0)).to(device)
    cost = torch.from_numpy(np.asarray(weights, np.float64)).to(device)
    forward, backward = _products(features, device)
    w = torch.zeros(features.shape[1] + 1, sign.shape[1], dtype=torch.float64, device=device)
    scores = torch.zeros_like(sign)
    for _ in range(steps):
        slack = (1 - sign * scores).clamp_min_(0)
        objective = w.square().sum(0) / 2 + (cost * slack.square()).sum(0)
        gradient = w - 2 * backward(cost * sign * slack)
        size = gradient.norm(dim=0)
        todo = size.square() / 2 > tolerance * objective
        if not todo.any():
            return w[:-1], w[-1]
        curvature = 2 * cost * (slack > 0)
        # the nearer the optimum, the more exact the step: quadratic convergence
        goal = torch.where(todo, size * size.clamp(max=0.1), torch.inf)
        direction = _conjugate_gradients(lambda v, d=curvature: v + backward(d * forward(v)), -gradient, goal)
        ahead = forward(direction)
        length = _line_search(w, direction, scores, ahead, sign, cost, objective, (gradient * direction).sum(0))
        w += length * direction
        scores += length * ahead
    raise UserError(f"voc_svm: the machines do not converge in {steps} steps: choose a smaller voc_svm.cost")


def svm_scores(features: np.ndarray, weight: Tensor, bias: Tensor) -> np.ndarray:
    """Scores of features ``[N, C]``, which are L2-normalised first: float64 ``[N, A]``."""
    both = torch.cat([weight, bias[None]])
    return torch.cat([(rows @ both).cpu() for _, rows in _rows(features, both.device)]).numpy()


def _rows(features: np.ndarray, device: torch.device | str) -> Iterator[tuple[int, Tensor]]:
    """L2-normalised rows with a 1 behind them, a chunk at a time."""
    for start, rows in chunks(features):
        unit = unit_rows(rows, device)
        yield start, torch.nn.functional.pad(unit, (0, 1), value=1.0).double()


def _products(features: np.ndarray, device: torch.device | str) -> tuple[Product, Product]:
    """Products with the matrix of the features and with its transpose; one that is a single chunk stays in memory."""
    several = len(features) > len(next(chunks(features))[1])
    kept = [] if several else list(_rows(features, device))

    def forward(v: Tensor) -> Tensor:
        return torch.cat([rows @ v for _, rows in kept or _rows(features, device)])

    def backward(v: Tensor) -> Tensor:
        return sum(rows.T @ v[start : start + len(rows)] for start, rows in kept or _rows(features, device))

    return forward, backward


def _conjugate_gradients(hessian: Product, target: Tensor, goal: Tensor, steps: int = 250) -> Tensor:
    """Solve ``hessian(x) = target`` for each column, until its residual's norm is below its goal."""
    x = torch.zeros_like(target)
    residual, direction = target.clone(), target.clone()
    square = residual.square().sum(0)
    for _ in range(steps):
        running = square.sqrt() > goal
        if not running.any():
            break
        image = hessian(direction)
        length = torch.where(running, square / (direction * image).sum(0).clamp_min(1e-300), 0)
        x += length * direction
        residual -= length * image
        new = residual.square().sum(0)
        direction = residual + torch.where(running, new / square.clamp_min(1e-300), 0) * direction
        square = new
    return x


def _line_search(w: Tensor, direction: Tensor, scores: Tensor, ahead: Tensor, sign: Tensor, cost: Tensor,
                 objective: Tensor, slope: Tensor) -> Tensor:
    """For each column the largest of 1, 1/2, 1/4, … that lowers the objective enough (Armijo), ``[A]``; 0 for none."""
    length = torch.ones_like(objective)
    own, mixed, square = w.square().sum(0), (w * direction).sum(0), direction.square().sum(0)
    for _ in range(40):
        slack = (1 - sign * (scores + length * ahead)).clamp_min_(0)
        new = (own + 2 * length * mixed + length.square() * square) / 2 + (cost * slack.square()).sum(0)
        good = new <= objective + 1e-4 * length * slope
        if good.all():
            return length
        length = torch.where(good, length, length / 2)
    return torch.where(good, length, 0)
