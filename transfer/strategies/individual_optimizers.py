"""A step for each task in turn, with an optimiser of its own."""

from __future__ import annotations

from typing import Any

from torch import nn

from transfer.strategies.base import Training
from transfer.strategies.individual import Individual
from transfer.strategies.registry import SCHEDULES


@SCHEDULES.register("individual_optimizers")
class IndividualOptimizers(Individual):
    """Individual optimisers (MTL-IO; Pascal 2021, equation 4.7).

    w_{t+1}^{(k)} = w_{t+1}^{(k−1)} − η m̂^{(k)}(g^{(k)}(w_{t+1}^{(k−1)}, ξ_t)), k = 1 … N: as ``individual``, and the
    moments m̂^{(k)} of the shared parameters are those of task k alone. So they are held once for each task, or group
    of tasks. Parameters that a balance learns count as shared.
    """

    def __init__(self, training: Training) -> None:
        super().__init__(training)
        self._optimizers = {group: training.build_optimizer(self._parameter_groups(tasks))
                            for group, tasks in training.groups.items()}

    def _parameter_groups(self, tasks: list[str]) -> list[dict[str, Any]]:
        """The network's parameter groups, without what belongs to other tasks."""
        training = self.training
        others = {id(value) for task in training.tasks if task not in tasks
                  for value in training.model.task_parameters(task)}
        groups = [{**group, "params": [value for value in group["params"] if id(value) not in others]}
                  for group in training.model.parameter_groups()]
        learned: list[nn.Parameter] = list(training.balance.parameters())
        if learned:
            groups.append({"params": learned, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]

    @property
    def optimizers(self) -> list[Any]:
        return list(self._optimizers.values())

    def optimizer_of(self, group: str) -> Any:
        return self._optimizers[group]

    def state_dict(self) -> dict[str, Any]:
        states = {group: optimizer.state_dict() for group, optimizer in self._optimizers.items()}
        return {**super().state_dict(), "optimizers": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        states = state["optimizers"]
        if states.keys() != self._optimizers.keys():
            raise ValueError(f"the optimisers are those of the task groups {', '.join(states)}")
        for group, optimizer in self._optimizers.items():
            optimizer.load_state_dict(states[group])
