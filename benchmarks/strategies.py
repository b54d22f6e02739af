"""The gradient engine beside its peers: time of a training step relative to a plain sum of the losses, and memory.

    python -m benchmarks.strategies [--cases dense3,dense8,classes40] [--rounds N] [--threads N]

ResNet-18 with batch norm at 96 px and a small head for each task; forward, gradients of everything into ``.grad``,
no optimiser step. Variants take turns, and a figure is the median over the rounds of the ratio to the plain sum of the
same round, so that a machine whose speed drifts, or that others use too, matters little. TorchJD is a dependency;
LibMTL is measured where it can be imported (``pip install --no-deps LibMTL``). Before anything is timed, the directions
and lengths of all variants of a rule are compared: where libraries define it alike, which for PCGrad's random order is
on two tasks (there is one order), and for MGDA at the representation on one image (LibMTL sums over the images first).
The peak is of the network's parameters and all tensors of a step that are alive at a time, gradients among them; it is
the same in every run, which the memory of a process is not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import types
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.errors import UserError
from harness.program import run_program
from harness.seeding import available_cores
from mtl_heads import build_model
from transfer.gradients.objective import RunObjective
from transfer.gradients.passes import Part
from transfer.strategies import build_balance


@dataclass(frozen=True)
class Case:
    """A network and a batch.

    Args:
        tasks: how many.
        batch: images.
        dense: whether tasks are maps of four channels, or one label of an image each.
    """

    tasks: int
    batch: int
    dense: bool


CASES = {"dense3": Case(3, 8, True), "dense8": Case(8, 4, True), "classes40": Case(40, 8, False)}
#: Rules that give one and the same direction in all three libraries; one that draws an order; one of representations.
RULE, DRAWN, REPRESENTATION = "imtl_g", "pcgrad", "mgda_ub"
#: Of these rules, by how much each library's direction is longer than ours, as they state it: IMTL-G's weights sum to 1
#: and PCGrad's projected gradients are summed in all of them; MGDA's weights are on the simplex.
LENGTH = 1.0


class Problem:
    """A network, a batch, and its losses; it lends an objective what a run does."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.case = case
        self.names = [f"task{i}" for i in range(case.tasks)]
        outputs = dict.fromkeys(self.names, 4 if case.dense else 2)
        self.model = self.wrapped = build_model("baseline", "resnet18", outputs if case.dense else {},
                                                {} if case.dense else outputs,
                                                **({"head": "linear"} if case.dense else {}))
        self.model.train()
        self.batch = torch.randn(case.batch, 3, 96, 96)
        shape = (case.batch, 4, 96, 96) if case.dense else (case.batch,)
        self.targets = {name: torch.randn(shape) if case.dense else torch.randint(0, 2, shape) for name in self.names}
        self.part = Part(self.batch, self.targets, {name: torch.ones(1) for name in self.names}, 1.0, True)
        self.shared = self.model.shared_parameters()
        self.own = [self.model.task_parameters(name) for name in self.names]

    def losses_of(self, output: Any, part: Any = None, tasks: Any = None) -> dict[str, Tensor]:
        loss = F.mse_loss if self.case.dense else F.cross_entropy
        return {name: loss(output.predictions[name], self.targets[name]) for name in tasks or self.names}

    def images(self, part: Part) -> Tensor:
        return part.images

    def autocast(self) -> Any:
        return nullcontext()

    def exchanging(self, last: bool) -> Any:
        return nullcontext()

    def scale(self) -> None:
        return None

    # -- variants: each puts gradients into .grad -------------------------------------------------

    def plain(self) -> None:
        """One backward of the sum."""
        torch.stack(list(self.losses_of(self.model(self.batch)).values())).sum().backward()

    def ours(self, name: str, **options: Any) -> Callable[[], None]:
        """A balance of this library."""
        balance = build_balance(name, self.names, **options)
        objective = RunObjective(self, balance, {task: [task] for task in self.names}, dict.fromkeys(self.names),
                                 lambda value: value, 1, seed=0)

        def step() -> None:
            objective.number += 1
            objective.accumulate([self.part], self.names)

        return step

    def autojac(self, aggregator: str, chunk: int | None) -> Callable[[], None]:
        """TorchJD's Jacobian descent, with products in chunks of so many tasks."""
        from torchjd import aggregation
        from torchjd.autojac import jac_to_grad, mtl_backward

        rule = getattr(aggregation, aggregator)()

        def step() -> None:
            features = self.model.encode(self.batch)  # heads read the last map alone
            losses = self.losses_of(self.model.decode(features, self.batch.shape[-2:]))
            mtl_backward(list(losses.values()), features=features[-1:], tasks_params=self.own,
                         shared_params=self.shared, parallel_chunk_size=chunk)
            jac_to_grad(self.shared, rule)

        return step

    def autogram(self, weighting: str) -> Callable[[], None]:
        """TorchJD's Gramian engine, and a backward of the weighted sum; it scales the heads' gradients too."""
        from torchjd import aggregation
        from torchjd.autogram import Engine

        rule, engine = getattr(aggregation, weighting)(), Engine(self.model.encoder.backbone, batch_dim=None)

        def step() -> None:
            self.clear()
            losses = torch.stack(list(self.losses_of(self.model(self.batch)).values()))
            weights = rule(engine.compute_gramian(losses))
            losses.backward(weights)

        step.problem = self

        return step

    def libmtl(self, name: str, representation: bool = False) -> Callable[[], None]:
        """A weighting class of LibMTL, on the gradients of shared parameters or of the representation."""
        # The package imports a module that torchvision has dropped since; its weighting classes do not need it.
        gone = types.ModuleType("torchvision.models.utils")
        gone.load_state_dict_from_url = torch.hub.load_state_dict_from_url
        sys.modules.setdefault(gone.__name__, gone)
        from LibMTL import weighting

        problem = self

        class Weighting(getattr(weighting, name)):
            task_num, device, rep_grad = len(problem.names), torch.device("cpu"), representation
            task_name = problem.names

            def get_share_params(self) -> list[nn.Parameter]:
                return problem.shared

            def zero_grad_share_params(self) -> None:
                for value in problem.shared:
                    value.grad.zero_()

        rule = Weighting()
        rule.init_param()

        def step() -> None:
            losses = torch.stack(list(self.losses_of(self.model(self.batch)).values()))
            rule.backward(losses)

        def step_at_representation() -> None:
            *rest, rule.rep = self.model.encode(self.batch)  # heads read the last map alone
            rule.rep_tasks = {task: rule.rep.detach().requires_grad_() for task in self.names}
            losses = []
            for task, leaf in rule.rep_tasks.items():
                output = self.model.decode([*rest, leaf], self.batch.shape[-2:], [task])
                losses.append(self.losses_of(output, tasks=[task])[task])
            rule.backward(torch.stack(losses), mgda_gn="none")

        return step_at_representation if representation else step

    @torch.no_grad()
    def oppose(self) -> None:
        """Let the second task want nearly the contrary of the first, so that their gradients conflict."""
        for first, second in zip(*self.own[:2], strict=True):
            second.copy_(first)
        one, other = self.names[:2]
        if self.case.dense:
            wanted = 2 * self.model(self.batch).predictions[one] - self.targets[one]
            self.targets[other] = wanted + torch.randn_like(wanted)
        else:
            self.targets[other] = 1 - self.targets[one]

    def clear(self) -> None:
        for value in self.model.parameters():
            value.grad = None

    def direction(self, step: Callable[[], None]) -> Tensor:
        """What a variant gives the shared parameters."""
        problem = getattr(step, "problem", self)
        problem.clear()
        step()
        found = torch.cat([value.grad.flatten() for value in problem.shared])
        problem.clear()
        return found


Steps = dict[str, Callable[[], None]]


def variants(problem: Problem) -> dict[str, Callable[[], Callable[[], None]]]:
    """What makes each way to make a step, by name."""
    found: dict[str, Callable[[], Callable[[], None]]] = {
        "plain sum": lambda: problem.plain,
        "uncertainty": lambda: problem.ours("uncertainty"),
        "dwa": lambda: problem.ours("dwa"),
        f"{REPRESENTATION}, representation": lambda: problem.ours(REPRESENTATION),
        f"{RULE}, kept": lambda: problem.ours(RULE, mode="kept"),
        f"{RULE}, lean": lambda: problem.ours(RULE, mode="lean"),
        f"{DRAWN}, kept": lambda: problem.ours(DRAWN, mode="kept"),
        f"{RULE}, TorchJD autojac one by one": lambda: problem.autojac("IMTLG", 1),
        f"{RULE}, TorchJD autojac batched": lambda: problem.autojac("IMTLG", None),
        # It hooks the network's modules, so it has a network of its own.
        f"{RULE}, TorchJD autogram": lambda: Problem(problem.case).autogram("IMTLGWeighting"),
        f"{DRAWN}, TorchJD autojac one by one": lambda: problem.autojac("PCGrad", 1),
    }
    try:
        problem.libmtl("IMTL")
    except ImportError as error:
        print(f"without LibMTL ({error})")
    else:
        found |= {f"{RULE}, LibMTL": lambda: problem.libmtl("IMTL"),
                  f"{DRAWN}, LibMTL": lambda: problem.libmtl("PCGrad"),
                  f"{REPRESENTATION}, LibMTL": lambda: problem.libmtl("MGDA", representation=True)}
    return found


def check(problem: Problem, steps: Steps) -> None:
    """All variants of a rule give one direction, and one length.

    Raises:
        UserError: one does not.
    """
    compare(problem, steps, RULE)
    pair = Problem(Case(2, problem.case.batch, problem.case.dense))
    pair.oppose()
    compare(pair, {name: make() for name, make in variants(pair).items() if name.startswith(DRAWN)}, DRAWN)
    if problem.case.dense:
        image = Problem(Case(2, 1, True))
        compare(image, {name: make() for name, make in variants(image).items() if name.startswith(REPRESENTATION)},
                REPRESENTATION)


def compare(problem: Problem, steps: Steps, rule: str) -> None:
    """The directions of a rule's variants with that of the first.

    Raises:
        UserError: one is another, or has another length.
    """
    steps = {name: step for name, step in steps.items() if name.startswith(f"{rule}, ")}
    reference = problem.direction(next(iter(steps.values()))).double()
    for name, step in steps.items():
        found = problem.direction(step).double()
        away = float((found / found.norm() - reference / reference.norm()).norm())
        length = float(found.norm() / reference.norm())
        print(f"  {name}: {away:.1e} away from ours, length {length:.4f} of it")
        if away > 1e-2 or abs(length / LENGTH - 1) > 1e-2:
            raise UserError(f"'{name}' has another direction or length: the figures would compare different things")
    if rule == DRAWN and float((problem.direction(problem.plain) - reference).norm()) < 0.1 * float(reference.norm()):
        raise UserError(f"the gradients do not conflict, and {DRAWN} has nothing to do: nothing was compared")


def measure(problem: Problem, steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median ratio to the plain sum of the same round, and median seconds."""
    ratios: dict[str, list[float]] = {name: [] for name in steps}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        times = {}
        for name, step in steps.items():
            problem.clear()
            start = time.perf_counter()
            step()
            times[name] = time.perf_counter() - start
        if turn:  # the first warms up
            for name, value in times.items():
                ratios[name].append(value / times["plain sum"])
                seconds[name].append(value)
    return {name: (statistics.median(ratios[name]), statistics.median(seconds[name])) for name in steps}


class LiveTensors(TorchDispatchMode):
    """Follows the bytes of the tensors that operations make, as long as they live.

    Attributes:
        peak: the most that there were at a time; scratch memory inside of an operation is not among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._follow(value.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def peak(problem: Problem, step: Callable[[], None]) -> float:
    """MiB: the network's parameters, and at most at a time the tensors of a step and its gradients."""
    problem = getattr(step, "problem", problem)
    problem.clear()
    with LiveTensors() as live:
        step()
    problem.clear()
    return (live.peak + sum(value.nbytes for value in problem.model.parameters())) / 2**20


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strategies", description=__doc__.split("\n")[0])
    parser.add_argument("--cases", default=",".join(CASES), help="separated by commas")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every variant")
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for case in arguments.cases.split(","):
        if case not in CASES:
            raise UserError(f"--cases: there is no case '{case}': choose of {', '.join(CASES)}")
        problem = Problem(CASES[case])
        print(f"\n{case}: ResNet-18, 96 px, T = {CASES[case].tasks}, batch {CASES[case].batch}, "
              f"{arguments.threads} threads", flush=True)
        steps = {name: make() for name, make in variants(problem).items()}
        check(problem, steps)
        found = measure(problem, steps, arguments.rounds)
        peaks = {name: peak(problem, step) for name, step in steps.items()}
        print("\n| Step | Time / plain sum | ms | Peak / plain sum | Peak [MiB] |\n|---|---:|---:|---:|---:|")
        for name, (ratio, seconds) in found.items():
            print(f"| {name} | {ratio:.2f} | {1000 * seconds:.0f} | {peaks[name] / peaks['plain sum']:.2f} | "
                  f"{peaks[name]:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    run_program(main)
