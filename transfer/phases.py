"""Which tasks a run trains when: all at once, or one group after another."""

from __future__ import annotations

from typing import Any

from harness.errors import UserError
from transfer.config import TransferConfig


class Phases:
    """The phases of an architecture's training; each has the configured number of epochs.

    The phase is a function of the epoch, so a resumed run needs nothing else to know it.

    Args:
        model: says what its phases are, and freezes what is not trained in them.
        config: of the run.

    Raises:
        UserError: there are several phases, and the strategy needs all losses of a step.
    """

    def __init__(self, model: Any, config: TransferConfig) -> None:
        self.model = model
        self.groups: list[list[str]] = model.phases()
        self.epochs_each = config.epochs
        self._entered: int | None = None
        if len(self.groups) > 1:
            for part, only in (("balance", "equal"), ("schedule", "shared"), ("partition", "full")):
                chosen = getattr(config, part).name
                if chosen != only:
                    raise UserError(
                        f"architecture '{config.model.name}' trains its tasks one after another, which leaves "
                        f"{part} '{chosen}' nothing to do: set --{part}.name {only}"
                    )

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def epochs(self) -> int:
        """Epochs of all phases together."""
        return self.epochs_each * len(self.groups)

    def enter(self, epoch: int) -> tuple[list[str], float]:
        """Ready the model for an epoch.

        Returns:
            The tasks that are trained in it, and the share of their phase that is done before it.
        """
        number, within = divmod(epoch, self.epochs_each)
        if number != self._entered and len(self.groups) > 1:
            self.model.enter_phase(number)
        self._entered = number
        return self.groups[number], within / self.epochs_each
