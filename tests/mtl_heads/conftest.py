"""What several tests of networks share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def own_inductor_cache(tmp_path_factory):
    """Compiled code of the tests alone: what an interrupted process left in the common folder may be cut off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield
