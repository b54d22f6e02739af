"""A real SLURM on this machine: one controller and two nodes, without systemd, cgroups or a database."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "sinfo")
CONF = """\
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/run/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.txt
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=512
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=5
MinJobAge=3600
OverTimeLimit=0
InactiveLimit=0
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
GresTypes=gpu
MailProg=/bin/true
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4096 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4096 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=brief Nodes=ALL MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE
"""


def missing() -> list[str]:
    """Programs of SLURM that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


USER = pwd.getpwuid(os.getuid()).pw_name


class Cluster:
    """A running SLURM.

    Args:
        folder: for its files; a short path, since one is a socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, _free_ports(3)
        self._pids: dict[str, int] = {}
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}

    def start(self) -> None:
        """Begin; the nodes are idle then."""
        self._write()
        munge = self.folder / "munge"
        self._call("munged", "--force", f"--key-file={munge}/key", f"--socket={munge}/sock",
                   f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", f"--log-file={munge}/log",
                   "--num-threads=2")
        self._call("slurmctld", "-c")
        for node in ("n1", "n2"):
            self._call("slurmd", "-N", node)
        wait_until(lambda: self.output("sinfo", "-h", "-p", "low", "-N", "-o", "%T").split() == ["idle"] * 2, 60,
                   lambda: f"nodes that are idle: {self.output('sinfo', '-N', '-l')}\n{self.logs()}")

    def _write(self) -> None:
        for name in ("munge", "state", "run", "log", "run/n1", "run/n2"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge").chmod(0o700)
        key = self.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        for number in range(2):
            (self.folder / "run" / f"gpu{number}").symlink_to("/dev/null")
        text = CONF.format(host=socket.gethostname().split(".")[0], user=USER, folder=self.folder,
                           ports=self.ports)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={self.folder}/run/gpu[0-1]\n")

    def stop(self) -> None:
        """End every job and every program of the cluster."""
        self.run("scancel", "--state=PENDING", f"--user={USER}", check=False)
        self.run("scancel", "--signal=KILL", "--full", f"--user={USER}", check=False)
        self.run("scancel", f"--user={USER}", check=False)
        with suppress(AssertionError):
            wait_until(lambda: not self.output("squeue", "-h"), 40, lambda: "jobs to end")
        for path in (*self.folder.glob("run/slurmd-*.pid"), self.folder / "run" / "slurmctld.pid",
                     self.folder / "munge" / "pid"):
            with suppress(OSError, ValueError):
                end(int(path.read_text()))

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        """A program of SLURM."""
        done = subprocess.run(["timeout", "10", *command], env={**os.environ, **self.environment},
                              capture_output=True, text=True, cwd=self.folder)
        assert not check or not done.returncode, f"{command}: {done.stderr}\n{self.logs()}"
        return done

    def output(self, *command: str) -> str:
        """What a program of SLURM prints; nothing if it cannot be asked at the moment."""
        return self.run(*command, check=False).stdout.strip()

    def _call(self, *command: str) -> None:
        program = shutil.which(command[0], path=_path())
        done = subprocess.run([program, *command[1:]], env={**os.environ, **self.environment}, cwd=self.folder,
                              stdin=subprocess.DEVNULL, stdout=open(self.folder / "log" / f"{command[0]}.out", "ab"),
                              stderr=subprocess.STDOUT)
        assert not done.returncode, (command, self.logs())

    def job(self, number: str) -> dict[str, str]:
        """What the controller knows of a job: JobState, RestartCnt, ExitCode, NodeList, ..."""
        words = self.output("scontrol", "show", "job", "-o", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, number: str) -> str:
        """State of a job; empty if the controller cannot be asked at the moment."""
        return self.job(number).get("JobState", "")

    def wait(self, number: str, *states: str, seconds: float = 240) -> dict[str, str]:
        """Wait until a job is in one of ``states``."""
        wait_until(lambda: self.state(number) in states, seconds,
                   lambda: f"job {number} to be {' or '.join(states)}: {self.job(number)}\n{self.logs()}")
        return self.job(number)

    def lose(self, node: str, job: str) -> None:
        """A node goes dark, with all that runs there of a job."""
        victims = [int((self.folder / "run" / f"slurmd-{node}.pid").read_text())]
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                variables = (path / "environ").read_bytes().split(b"\0")
                if f"SLURM_JOB_ID={job}".encode() in variables or \
                        (path / "cmdline").read_bytes().startswith(f"slurmstepd: [{job}.".encode()):
                    victims.append(int(path.name))
        for process in victims:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")

    def find(self, node: str) -> None:
        """A lost node is there again."""
        self._call("slurmd", "-N", node)
        wait_until(lambda: self.output("sinfo", "-h", "-p", "low", "-n", node, "-o", "%T") in ("idle", "mixed"), 60,
                   lambda: f"node {node}: {self.output('sinfo', '-N', '-l')}\n{self.logs()}")

    def logs(self) -> str:
        """The ends of the logs, for messages."""
        return "\n".join(f"-- {path.name}\n{path.read_text(errors='replace')[-1500:]}"
                         for path in sorted(self.folder.glob("log/*")))


def wait_until(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """Ask until it is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s for {what()}"
        time.sleep(0.1)


def alive(process: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    return "\nState:\tZ" not in status


def end(process: int) -> None:
    """SIGTERM, and SIGKILL where that is not enough."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(process, number)
        with suppress(AssertionError):
            wait_until(lambda: not alive(process), 10, lambda: f"process {process} to end")
            return


def _path() -> str:
    """Daemons are in folders that an ordinary user's path leaves out; ours first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def processes_of(folder: Path) -> list[int]:
    """Processes that name a folder, or whose environment does."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder).encode() in (path / "cmdline").read_bytes() + (path / "environ").read_bytes():
                found.append(int(path.name))
    return [pid for pid in found if pid != os.getpid()]


def listens(port: int) -> bool:
    """Whether anybody answers."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
