"""Every aggregator and weighting of TorchJD as a balance: ``torchjd:<ClassName>``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from harness.errors import UserError, closest
from transfer.strategies.base import GradientBalance, GramianBalance, JacobianBalance
from transfer.strategies.registry import BALANCES

PREFIX = "torchjd:"

#: Bases, which are no rules themselves.
BASES = {"Aggregator", "WeightedAggregator", "GramianWeightedAggregator", "Weighting"}
#: They are given a Jacobian and look at the number of its rows alone; a Gramian has as many.
NUMBER_OF_ROWS = {"Constant", "Mean", "Random", "Sum"}
#: They are given the products of the Jacobians of two parts of the batch.
TWO_DRAWS = {"MoDoWeighting", "SDMGradWeighting"}
#: They smooth the weights of another weighting.
WRAPPERS = {"CRMOGMWeighting"}
#: Parameters that are no options: they cannot be written on a command line, or the balance knows them.
LEFT_OUT = {"f", "projector", "n_tasks"}
#: They need solvers under the GPL, and the balances that do the same without.
GPL = {"UPGrad": "upgrad", "DualProj": "dualproj", "NashMTL": "nash_mtl"}
#: How their markup, and its mathematics, is written in plain text.
PLAIN = [
    (r"\s*\.\. [\w-]+::.*", ""),  # notes and examples, which docstring_parser takes for a part of the last parameter
    (r"\s+", " "),
    (r"\\begin\{bmatrix\}(.*?)\\end\{bmatrix\}", lambda found: f"[{found[1].replace('&', ',').strip()}]"),
    (r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2"),
    (r"\\(?:hat|tilde|mathbb|mathrm)\s*(?:\{([^{}]*)\}|(\\?\w+))", r"\1\2"),
    (r"\\l?dots", "..."),
    (r"\\(\w+)", r"\1"),
    (r":(?:\w+:)+`~?([^`<]*?)(?: <[^`]*>)?`", lambda found: found[1].removeprefix("torchjd.aggregation.")),
    (r"`([^`<]*) <([^`]*)>`_", r"\1 (\2)"),
    (r"`+", ""),
    (r" ,", ","),
]
#: What they remember besides their buffers.
MEMORY = ("_state_key", "_n_steps")


@BALANCES.resolver(PREFIX, "<ClassName>")
def torchjd_rule(name: str) -> type[GradientBalance]:
    """The balance that is TorchJD's class ``name``.

    Its constructor's parameters are the options: vectors are lists with a value for each task, and another
    weighting is the name of its class.

    Raises:
        UserError: TorchJD has no such aggregator or weighting.
    """
    made_by = _class(name)
    base = _TorchJDGramian if _takes_gramian(made_by) else _TorchJDJacobian
    options = [_option(parameter) for parameter in _parameters(made_by)]

    def __init__(self: Any, tasks: Sequence[str], **given: Any) -> None:
        base.__init__(self, tasks)
        self.hold(_build(made_by, self.tasks, {option.name: option.default for option in options} | given))

    first = [inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD) for key in ("self", "tasks")]
    __init__.__signature__ = inspect.Signature([*first, *options])  # what the command line reads
    __init__.__annotations__ = {option.name: option.annotation for option in options}
    draws = {"draws": 2} if name in TWO_DRAWS else {}
    return type(name, (base,), {"__init__": __init__, "__doc__": _docstring(made_by, options),
                                "__module__": __name__, **draws})


class _TorchJD(GradientBalance):
    """Holds the object of TorchJD, and saves what it remembers.

    That has the size of the problem that it saw, so it begins anew when the number of tasks with labels in the
    batch changes. NashMTL begins anew when a run is resumed.
    """

    function: nn.Module
    seen: int | None = None

    def hold(self, function: nn.Module) -> None:
        """Take the object to be called; not a submodule, as its buffers come and go."""
        object.__setattr__(self, "function", function)

    def ask(self, matrix: Tensor) -> Tensor:
        """What the object makes of a Gramian or Jacobian.

        Raises:
            UserError: it does not fit the object's options.
        """
        if self.seen not in (None, len(matrix)) and hasattr(self.function, "reset"):
            self.function.reset()
        self.seen = len(matrix)
        try:
            return self.function.to(matrix.device)(matrix.detach())
        except ValueError as error:
            raise UserError(f"balance '{PREFIX}{type(self).__name__}' with {len(matrix)} tasks: "
                            f"{' '.join(str(error).split())}") from error

    def get_extra_state(self) -> dict[str, Any]:
        memory = {}
        for name, module in self.function.named_modules():
            memory[name] = {key: value.clone() for key, value in module.named_buffers(recurse=False)}
            memory[name] |= {key: getattr(module, key) for key in MEMORY if hasattr(module, key)}
        return {"seen": self.seen, "memory": memory}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]
        modules = dict(self.function.named_modules())
        for name, values in state["memory"].items():
            for key, value in values.items():
                setattr(modules[name], key, value.clone() if isinstance(value, Tensor) else value)


class _TorchJDGramian(_TorchJD, GramianBalance):
    """A rule of TorchJD that gives weights for inner products."""

    def weights(self, gramian: Tensor, losses: Tensor | None = None) -> Tensor:
        return self.ask(gramian).to(gramian)


class _TorchJDJacobian(_TorchJD, JacobianBalance):
    """A rule of TorchJD on the gradients themselves."""

    def direction(self, jacobian: Tensor) -> Tensor:
        return self.ask(jacobian).to(jacobian)


def _class(name: str) -> type[nn.Module]:
    from torchjd import aggregation

    known = [key for key in aggregation.__all__ if key not in BASES]
    if name not in known:
        raise UserError(f"unknown balance '{PREFIX}{name}'{closest(name, known)}: TorchJD has {', '.join(known)}")
    return getattr(aggregation, name)


def _takes_gramian(made_by: type[nn.Module]) -> bool:
    from torchjd import aggregation

    name = made_by.__name__
    aggregator = getattr(aggregation, name.removesuffix("Weighting"), made_by)
    return (issubclass(aggregator, aggregation.GramianWeightedAggregator) or name in TWO_DRAWS | WRAPPERS
            or aggregator.__name__ in NUMBER_OF_ROWS)


def _build(made_by: type[nn.Module], tasks: list[str], options: dict[str, Any]) -> nn.Module:
    """Make the object, and cut it down to what takes a Gramian where it can be one of weights."""
    from torchjd import aggregation

    name, gramian = made_by.__name__, _takes_gramian(made_by)
    values = {key: _value(key, value, gramian, tasks) for key, value in options.items()}
    parameters = inspect.signature(made_by).parameters
    for key, value in values.items():
        if value is None and parameters[key].default is inspect.Parameter.empty:
            raise UserError(f"balance '{PREFIX}{name}' needs a value for {key}: set --balance.{key}")
    if "n_tasks" in parameters:
        values["n_tasks"] = len(tasks)
    try:
        function = made_by(**values)
    except ImportError as error:
        reason = " ".join(str(error).split())
        ours = GPL.get(name.removesuffix("Weighting"))
        if ours:
            reason = f"it needs solvers under the GPL: choose '{ours}', which needs none, or install tasklift[gpl]"
        raise UserError(f"balance '{PREFIX}{name}': {reason}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"balance '{PREFIX}{name}': {' '.join(str(error).split())}") from error
    if gramian and isinstance(function, aggregation.WeightedAggregator):
        return getattr(function, "gramian_weighting", function.weighting)
    if not gramian and isinstance(function, aggregation.Weighting):
        return aggregation.WeightedAggregator(function)
    return function


def _value(key: str, value: Any, gramian: bool, tasks: list[str]) -> Any:
    """An option as TorchJD takes it."""
    if isinstance(value, (list, tuple)):
        return torch.tensor(value, dtype=torch.float64 if gramian else torch.float32)
    if key == "weighting" and value is not None:
        made_by = _class(value)
        return _build(made_by, tasks, {option.name: option.default for option in map(_option, _parameters(made_by))})
    return value


def _parameters(made_by: type[nn.Module]) -> list[inspect.Parameter]:
    hints = get_type_hints(made_by.__init__)
    return [parameter.replace(annotation=hints.get(name, Any))
            for name, parameter in inspect.signature(made_by).parameters.items() if name not in LEFT_OUT]


def _option(parameter: inspect.Parameter) -> inspect.Parameter:
    """A parameter of TorchJD as one that can be written down; those it requires are None until they are given."""
    annotation, default = _annotation(parameter.annotation), parameter.default
    if default is inspect.Parameter.empty:
        annotation, default = annotation | None, None
    return inspect.Parameter(parameter.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _annotation(annotation: Any) -> Any:
    from torchjd.aggregation import Weighting

    if annotation is Tensor:
        return list[float]
    if annotation is Weighting or get_origin(annotation) is Weighting:
        return str
    arguments = get_args(annotation)
    if Tensor in arguments:
        return Union[tuple(_annotation(argument) for argument in arguments)]  # noqa: UP007
    return annotation


def _docstring(made_by: type[nn.Module], options: list[inspect.Parameter]) -> str:
    """TorchJD's own words for the options, where ``--help`` looks for them."""
    from docstring_parser import parse

    about = {param.arg_name: _plain(param.description or "") for param in parse(inspect.getdoc(made_by) or "").params}
    lines = [f"    {option.name}: {about.get(option.name) or 'see TorchJD.'}" for option in options]
    return "\n".join([f"TorchJD's {made_by.__name__}.", "", "Args:", "    tasks: names of the tasks.", *lines])


def _plain(text: str) -> str:
    """Restructured text without its markup, and without the notes after it."""
    for pattern, plain in PLAIN:
        text = re.sub(pattern, plain, text, flags=re.DOTALL)
    return text.strip()
