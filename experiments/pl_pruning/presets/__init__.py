# SPDX-License-Identifier: Apache-2.0
"""The sizes at which the experiment is run, on a CPU and on one GPU."""

from experiments.pl_pruning.presets import digits, fashion_mnist, larger
from experiments.pl_pruning.presets.paper import PAPER

_SMALL = digits.ABOUT | fashion_mnist.ABOUT | larger.ABOUT

PRESETS = {
    "digits": digits.DIGITS,
    "digits_all": digits.DIGITS_ALL,
    "digits_controls": digits.DIGITS_CONTROLS,
    "digits_fractions": digits.DIGITS_FRACTIONS,
    "fashion_mnist": fashion_mnist.FASHION_MNIST,
    "fashion_mnist_controls": fashion_mnist.FASHION_CONTROLS,
    "fashion_mnist_square": fashion_mnist.FASHION_SQUARE,
    "fashion_mnist_square_all": fashion_mnist.FASHION_SQUARE_ALL,
    "fashion_mnist_small": fashion_mnist.FASHION_SMALL,
    "fashion_mnist_sgd": fashion_mnist.FASHION_SGD,
    "fashion_mnist_online": fashion_mnist.FASHION_ONLINE,
    "fashion_mnist_sgd_all": fashion_mnist.FASHION_SGD_ALL,
    "fashion_mnist_widths": fashion_mnist.FASHION_WIDTHS,
    "fashion_mnist_cnn": fashion_mnist.FASHION_CNN,
    "cifar10_vgg": larger.CIFAR_VGG,
    "cifar10_resnet": larger.CIFAR_RESNET,
    "shakespeare_bert": larger.BERT,
    "shakespeare_switch": larger.SWITCH,
    "quick": digits.QUICK,
    **{f"{name}_paper": config for name, config in PAPER.items()},
}
ABOUT = {
    **_SMALL,
    **{
        f"{name}_paper": _SMALL[name]._replace(
            minutes=None, claim="The same at the size of one GPU.", expected=""
        )
        for name in PAPER
    },
}
