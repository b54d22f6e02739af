"""Jobs in the background of this machine; no SLURM is needed."""

from __future__ import annotations

import functools
import os
import re
import signal
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'submitit>=1.5.4,<1.6'")

from submitit.local.local import LocalExecutor

from slurm.clusters.local import Local


def test_the_terminal_does_not_end_them(tmp_path):
    """Neither Ctrl-C nor its closing reaches what submitit starts."""
    executor = LocalExecutor(tmp_path)
    executor.update_parameters(timeout_min=1, tasks_per_node=1)
    before = signal.getsignal(signal.SIGINT)
    job = Local._start(executor, functools.partial(os.getsid, 0))
    ignored = int(re.search(r"SigIgn:\t(\w+)", Path(f"/proc/{job.job_id}/status").read_text())[1], 16)
    assert all(ignored >> number - 1 & 1 for number in (signal.SIGINT, signal.SIGHUP))
    assert job.result() != os.getsid(0)
    assert signal.getsignal(signal.SIGINT) is before
