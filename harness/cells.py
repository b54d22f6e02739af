"""Many runs as cells of a table: in parallel, each in a process of its own, one's failure leaving the others alone."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
_PR_SET_PDEATHSIG = 1


@dataclass
class Cell:
    """One run.

    Args:
        name: of the run, and of its log.
        command: what makes it; called again, it goes on where it stopped.
        done: file that is there when it is finished.
        after: names of cells whose results it reads.
    """

    name: str
    command: Sequence[str]
    done: Path
    after: tuple[str, ...] = ()


def run_cells(cells: Sequence[Cell], logs: Path, jobs: int,
              environments: Sequence[Mapping[str, str]] = ()) -> dict[str, str]:
    """Run the cells that are not done, ``jobs`` at a time, in their order as far as they wait for no other.

    What a cell prints goes to ``logs/<name>.log``. When this process is interrupted or told to end, it
    asks the cells to stop and waits for them to save what they have; when it is killed, the system asks
    them (on Linux).

    Args:
        cells: the runs.
        logs: folder of their logs.
        jobs: how many run at once.
        environments: variables for the cells, in turn for each place among the ``jobs``: for example the
            GPU that runs at this place use.

    Returns:
        Why, for each cell that failed or could not start.
    """
    logs.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    waiting = {cell.name: cell for cell in cells if not cell.done.exists()}
    running: dict[str, tuple[Cell, subprocess.Popen, float, int]] = {}
    places = list(range(jobs))
    total, count, begin = len(waiting), 0, time.monotonic()
    if total < len(cells):
        print(f"{len(cells) - total} of {len(cells)} runs are finished already", flush=True)
    try:
        while waiting or running:
            for name in [name for name, cell in waiting.items() if any(other in failed for other in cell.after)]:
                other = next(other for other in waiting.pop(name).after if other in failed)
                failed[name] = f"it needs {other}, which failed"
                count += 1
                print(f"[{count}/{total}] {name}: {failed[name]}", flush=True)
            ready = [cell for cell in waiting.values()
                     if not any(other in waiting or other in running for other in cell.after)]
            for cell in ready[: len(places)]:
                place = places.pop(0)
                extra = environments[place % len(environments)] if environments else {}
                running[cell.name] = (waiting.pop(cell.name), _start(cell, logs, extra), time.monotonic(), place)
            time.sleep(0.1)
            for name, (cell, process, start, place) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                places.append(place)
                places.sort()
                count += 1
                minutes = (time.monotonic() - start) / 60
                left = (time.monotonic() - begin) / 60 / count * (total - count)
                later = f", about {left:.1f} min left" if count < total else ""
                if process.returncode or not cell.done.exists():
                    failed[name] = _reason(logs / f"{name}.log", process.returncode)
                    print(f"[{count}/{total}] {name}: failed after {minutes:.1f} min: {failed[name]}", flush=True)
                else:
                    print(f"[{count}/{total}] {name}: {minutes:.1f} min{later}", flush=True)
    finally:
        for _, process, *_ in running.values():
            process.terminate()
        for _, process, *_ in running.values():
            process.wait()
    return failed


def _start(cell: Cell, logs: Path, extra: Mapping[str, str]) -> subprocess.Popen:
    with open(logs / f"{cell.name}.log", "a", encoding="utf-8") as log:
        print(f"$ {' '.join(cell.command)}", file=log, flush=True)
        return subprocess.Popen(cell.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                env={**os.environ, **THREADS, **extra}, preexec_fn=_end_with_parent())


def _end_with_parent():
    """What a new process does first, so that SIGTERM reaches it when this one dies, however that happens."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None
    parent, term, leave = os.getpid(), int(signal.SIGTERM), os._exit

    def ask() -> None:  # between fork and exec: nothing that takes a lock
        prctl(_PR_SET_PDEATHSIG, term)
        if os.getppid() != parent:
            leave(128 + term)

    return ask


def _reason(log: Path, code: int) -> str:
    """The last line of a log, where programs say what was wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").strip().splitlines()
    return f"{lines[-1].strip()[:200] if lines else 'no output'} (exit code {code}, {log})"
