"""MGDA on an upper bound, at the price of one backward pass through the encoder."""

from __future__ import annotations

from transfer.strategies.mgda import MGDA
from transfer.strategies.registry import BALANCES


@BALANCES.register("mgda_ub")
class MGDAUB(MGDA):
    """min ‖Σ_t α_t ∇_Z L_t‖² over the simplex (Sener & Koltun 2018, section 3.3, "MGDA-UB").

    Z = (z_1, …, z_N) is the representation of the whole batch, flattened, so that ‖∂Z/∂θ‖² times this norm
    bounds that of MGDA (equation 6). Where ∂Z/∂θ has full rank its solutions are Pareto stationary too
    (theorem 1). Options are those of ``mgda``.
    """

    level = "representation"
