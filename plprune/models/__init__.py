"""Models in Flax NNX, whose widths and depth are arguments."""

from plprune.models.convnet import CNN
from plprune.models.mlp import MLP

__all__ = ["CNN", "MLP"]
