"""Models in Flax NNX, whose widths and depth are arguments."""

from plprune.models.convnet import CNN
from plprune.models.mlp import MLP
from plprune.models.resnet import ResNet, ResNet9
from plprune.models.vgg import VGG
from plprune.models.wide_resnet import WideResNet

__all__ = ["CNN", "MLP", "VGG", "ResNet", "ResNet9", "WideResNet"]
