# SPDX-License-Identifier: Apache-2.0
"""Models in Flax NNX, whose widths and depth are arguments."""

from plprune.models.convnet import CNN
from plprune.models.lstm import LSTMLanguageModel
from plprune.models.mlp import MLP
from plprune.models.presets import PRESETS, build
from plprune.models.resnet import ResNet, ResNet9
from plprune.models.switch import SwitchTransformer
from plprune.models.transformer import CausalTransformer, Encoder
from plprune.models.vgg import VGG
from plprune.models.wide_resnet import WideResNet

__all__ = [
    "CNN",
    "MLP",
    "PRESETS",
    "VGG",
    "CausalTransformer",
    "Encoder",
    "LSTMLanguageModel",
    "ResNet",
    "ResNet9",
    "SwitchTransformer",
    "WideResNet",
    "build",
]
