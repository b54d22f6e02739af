"""Metrics pooled over a set.

Every state is a sum, so the result does not depend on how the set was split into batches or over
processes; ``compute()`` gives ``{metric name: float}``, ``nan`` for what an empty set leaves undefined.
"""

from __future__ import annotations
