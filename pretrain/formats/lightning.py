"""Files of Lightning: solo-learn, the benchmarks of lightly, and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from pretrain.formats.base import FORMATS, IMAGENET, Encoder, Loaded, bare
from pretrain.formats.layout import Layout

_CIFAR = {  # statistics of the data sets, as solo-learn has them
    "cifar10": {"mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.2435, 0.2616)},
    "cifar100": {"mean": (0.5071, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2762)},
}


class _Lightning(Layout):
    """A state dict under ``state_dict`` beside the trainer's own keys."""

    top = ("pytorch-lightning_version",)


def classifier_in(state: Mapping[str, Any], start: str) -> dict[str, Tensor]:
    """Weight and bias of a linear layer, by the start of its keys; empty when there is none."""
    found = {bare(key).removeprefix(start): value for key, value in state.items() if bare(key).startswith(start)}
    return found if set(found) <= {"weight", "bias"} and "weight" in found else {}


@FORMATS.register("solo-learn")
class SoloLearn(_Lightning):
    """Any method of solo-learn; its classifier was trained on the frozen backbone meanwhile."""

    prefixes, signs = ("backbone.", "encoder."), ("classifier.",)
    absent = ("online_classifier.",)
    roles = {
        "momentum encoder": ("momentum_backbone.", "momentum_encoder."),
        "momentum head": ("momentum_projector.", "momentum_classifier."),
        "projection head": ("projector.",),
        "predictor": ("predictor.",),
        "classifier": ("classifier.",),
        "queue": ("queue",),
    }

    def finish(self, encoder: Encoder, loaded: Loaded, state: Mapping[str, Any]) -> Encoder:
        """The stem for small images is a 3×3 convolution with padding 2; no shape tells."""
        stem = encoder.state.get("conv1.weight")
        small = stem is not None and tuple(stem.shape[-2:]) == (3, 3)
        convention = {**_CIFAR.get(_data_set(loaded), IMAGENET), **({"input_size": (3, 32, 32)} if small else {})}
        return replace(encoder, options={"stem_padding": 2} if small else {}, pretrained_cfg=convention,
                       classifier=classifier_in(state, "classifier."))


def _data_set(loaded: Loaded) -> str:
    """Name of the data set in the hyperparameters, where older and newer versions keep it."""
    values = loaded.content.get("hyper_parameters")
    if not isinstance(values, Mapping):
        return ""
    data = values.get("data")
    return str(data.get("dataset", "") if isinstance(data, Mapping) else values.get("dataset", ""))


@FORMATS.register("lightly benchmark")
class LightlyBenchmark(_Lightning):
    """The benchmarks of lightly: a torchvision ResNet with an online classifier."""

    prefixes, signs = ("backbone.",), ("backbone.conv1.", "online_classifier.")
    roles = {
        "momentum encoder": ("key_backbone.", "teacher_backbone.", "momentum_backbone.", "backbone_momentum."),
        "momentum head": ("key_projection_head.", "teacher_projection_head.", "projection_head_momentum."),
        "projection head": ("projection_head", "student_projection_head."),
        "predictor": ("prediction_head",),
        "classifier": ("online_classifier.",),
        "queue": ("queue", "criterion."),
    }

    def finish(self, encoder: Encoder, loaded: Loaded, state: Mapping[str, Any]) -> Encoder:
        """With the online classifier, a linear layer that may be wrapped in a module."""
        found = classifier_in(state, "online_classifier.") or classifier_in(state, "online_classifier.linear.")
        return replace(encoder, classifier=found)


@FORMATS.register("Lightning")
class OtherLightning(_Lightning):
    """Any other module of Lightning that calls its backbone by one of the usual names."""

    rank = 60
    prefixes = ("backbone.", "encoder.", "model.", "net.", "")
