# SPDX-License-Identifier: Apache-2.0
"""Models at the size of their papers, and small enough to train on a CPU."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import nnx

from plprune.models.layers import one_of
from plprune.models.lstm import LSTMLanguageModel
from plprune.models.resnet import ResNet, ResNet9
from plprune.models.switch import SwitchTransformer
from plprune.models.transformer import CausalTransformer, Encoder
from plprune.models.vgg import VGG, VGG11, VGG16
from plprune.models.wide_resnet import WideResNet


class Preset(NamedTuple):
    """A model class and its sizes."""

    model: Callable[..., nnx.Module]
    sizes: Mapping[str, Any]


def _quarter(stages, divisor=4):
    return tuple(tuple(width // divisor for width in stage) for stage in stages)


_RESNET_CPU, _RESNET_PAPER = (16, 32, 64, 128), (64, 128, 256, 512)
_SMALL_TEXT = {"vocabulary": 256, "positions": 64, "features": 64, "layers": 2, "heads": 4}

PRESETS: Mapping[str, Mapping[str, Preset]] = {
    "resnet9": {
        "cpu": Preset(ResNet9, {"widths": (16, 32, 64, 128)}),
        "paper": Preset(ResNet9, {"widths": _RESNET_PAPER}),
    },
    "resnet18": {
        "cpu": Preset(ResNet, {"blocks": (2, 2, 2, 2), "widths": _RESNET_CPU}),
        "paper": Preset(ResNet, {"blocks": (2, 2, 2, 2), "widths": _RESNET_PAPER}),
    },
    "resnet20": {
        "cpu": Preset(ResNet, {"blocks": (3, 3, 3), "widths": (8, 16, 32)}),
        "paper": Preset(ResNet, {"blocks": (3, 3, 3), "widths": (16, 32, 64)}),
    },
    "resnet34": {
        "cpu": Preset(ResNet, {"blocks": (3, 4, 6, 3), "widths": _RESNET_CPU}),
        "paper": Preset(ResNet, {"blocks": (3, 4, 6, 3), "widths": _RESNET_PAPER}),
    },
    "vgg11": {
        "cpu": Preset(VGG, {"stages": _quarter(VGG11)}),
        "paper": Preset(VGG, {"stages": VGG11}),
    },
    "vgg16": {
        "cpu": Preset(VGG, {"stages": _quarter(VGG16)}),
        "paper": Preset(VGG, {"stages": VGG16}),
    },
    "wide_resnet": {
        "cpu": Preset(WideResNet, {"depth": 16, "widening": 2}),
        "paper": Preset(WideResNet, {"depth": 28, "widening": 10}),
    },
    "lstm": {
        "cpu": Preset(
            LSTMLanguageModel, {"vocabulary": 256, "embedding": 64, "hidden": (128, 128, 64)}
        ),
        "paper": Preset(
            LSTMLanguageModel,
            {"vocabulary": 10_000, "embedding": 400, "hidden": (1150, 1150, 400), "tied": True},
        ),
    },
    "encoder": {
        "cpu": Preset(Encoder, {**_SMALL_TEXT, "width": 256}),
        "paper": Preset(Encoder, {"vocabulary": 30_522, "positions": 512}),
    },
    "causal_transformer": {
        "cpu": Preset(CausalTransformer, {**_SMALL_TEXT, "width": 256}),
        "paper": Preset(CausalTransformer, {"vocabulary": 50_257, "positions": 1024, "tied": True}),
    },
    "switch": {
        "cpu": Preset(SwitchTransformer, {**_SMALL_TEXT, "width": 128, "experts": 4}),
        "paper": Preset(SwitchTransformer, {"vocabulary": 32_128, "positions": 512, "experts": 8}),
    },
}


def build(name: str, size: str, *, rngs: nnx.Rngs, **changes: Any) -> nnx.Module:
    """A model of `PRESETS`, with any of its constructor's arguments changed.

    Args:
      name: Such as "resnet20".
      size: "cpu" or "paper".
      rngs: Draws the weights.
      **changes: Arguments of the class, such as out_features=100.

    Raises:
      ValueError: If the name or the size is unknown.
    """
    sizes = PRESETS[one_of("name", name, tuple(PRESETS))]
    preset = sizes[one_of("size", size, tuple(sizes))]
    return preset.model(**{**preset.sizes, **changes}, rngs=rngs)
