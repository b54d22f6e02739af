"""The job behind a sweep's array: the sweep's own comparison, then that of all its runs."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.errors import UserError


def main() -> int:
    """Compare what is finished; the words are the sweep's folder, then those of the sweep."""
    from transfer import compare, sweep

    folder, *words = sys.argv[1:]
    runs = Path(folder) / "runs"
    if not any(runs.glob("*/results.json")):
        raise UserError(f"no run of {folder} is finished: the logs of the array's jobs say why")
    before = words.index("--") if "--" in words else len(words)
    sys.argv = ["transfer.sweep", *words[:before], "--table=true", *words[before:]]
    code = sweep.main()
    sys.argv = ["transfer.compare", str(runs), "--markdown", str(Path(folder) / "runs.md")]
    return compare.main() or code
