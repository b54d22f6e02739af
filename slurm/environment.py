"""The world of processes, from what the cluster says about this one."""

from __future__ import annotations

import os
import re
import socket
from typing import Any

from harness.errors import UserError

FIRST_PORT, PORTS = 20000, 20000
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def join_world(job: Any, processes: int, cores: int | None = None) -> None:
    """Set the variables by which accelerate meets the other processes.

    Args:
        job: submitit's view of this process.
        processes: how many were asked for.
        cores: of this process alone.

    Raises:
        UserError: there are more or fewer.
    """
    if job.num_tasks != processes:
        raise UserError(f"{processes} processes were asked for, and the cluster started {job.num_tasks}: they would "
                        "train something else. Look for other counts of tasks in sbatch and srun of the launch")
    for name in NAMES:
        os.environ.pop(name, None)
    os.environ["TASKLIFT_WORLD_SIZE"] = str(processes)  # what harness.world compares the world with
    given = os.environ.get("SLURM_CPUS_ON_NODE", "")  # without limits of the system a process sees all of the node's
    if cores is None and given.isdigit():
        cores = max(1, int(given) // (processes // job.num_nodes))
    if cores:
        os.environ["TASKLIFT_CORES"] = str(cores)
    if processes == 1:
        return
    raw = int(re.sub(r"\D", "", job.raw_job_id) or 0)
    os.environ.update({
        "RANK": str(job.global_rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_RANK": str(job.local_rank),
        "LOCAL_WORLD_SIZE": str(processes // job.num_nodes),
        "NODE_RANK": str(job.node),
        "MASTER_ADDR": "127.0.0.1" if job.num_nodes == 1 else _address(job.hostnames[0]),
        "MASTER_PORT": str(FIRST_PORT + raw % PORTS),
    })


def _address(node: str) -> str:
    """The name of a node, or its address as SLURM knows it where the name means nothing to others."""
    try:
        socket.getaddrinfo(node, None)
        return node
    except OSError:
        pass
    from slurm.controller import ask

    done = ask("scontrol", "show", "node", "-o", node)
    match = re.search(r"NodeAddr=(\S+)", done.stdout)
    if not match:
        raise UserError(f"the first node of this job, {node}, has no address that the others can find: ask whether "
                        "the cluster's nodes know each other's names")
    return match[1]


def check_devices(gpus: int) -> None:
    """Refuse to train on a CPU what was to be trained on GPUs.

    Raises:
        UserError: torch sees none.
    """
    if not gpus:
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError(f"{gpus} GPUs were asked for on {socket.gethostname()}, and torch sees none (torch "
                        f"{torch.__version__}, CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}): "
                        "look at nvidia-smi there, and whether torch is a CUDA build")
