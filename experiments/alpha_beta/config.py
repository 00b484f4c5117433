# SPDX-License-Identifier: Apache-2.0
"""The alpha-beta-condition along training runs, and analytic examples.

Claim [Islamov 2024]: training runs satisfy, at every step, an inequality between the gradient, the
way to the last iterate and the loss, with two constants alpha > beta; the smallest such pair rises
with the width of a network and falls again when it is over-parametrised, and falls with the depth
and the batch size of ResNets, while aiming fails early.

    python -m experiments alpha_beta examples --preset quick
    python -m experiments alpha_beta width --preset cpu

Expected: in the table of examples a finite pair in every row, where aiming, quasar-convexity and
the PL condition fail. Every other figure says of itself, in a sentence computed from its record,
whether it shows what the paper shows.
"""

from dataclasses import dataclass

from experiments import About

FIGURES = (
    "examples", "halfspace", "width", "channels", "batch_size", "optimizer", "depth", "lstm",
    "transformer",
)  # fmt: skip
ON_ONE_DEVICE = ("examples", "halfspace")  # No minibatch of more than one example.
DATASETS = ("digits", "fashion_mnist", "cifar10")
OPTIMIZERS = ("sgd", "momentum", "adam")
CORPORA = ("tiny_shakespeare", "python_manual")
DEPTHS = (9, 18, 34)
POWERS = (1.0, 1.5, 2.0)  # delta of the relaxed PL condition; 2 is the PL condition.
KNOWN = {
    "dataset": DATASETS, "images": DATASETS, "corpus": CORPORA, "optimizers": OPTIMIZERS,
    "depths": DEPTHS,
}  # fmt: skip
RATES = (
    "rate", "conv_rate", "resnet_rate", "momentum_rate", "adam_rate", "lstm_rate", "text_rate",
    "heat_top",
)  # fmt: skip
DIGITS = 1437  # Training images of the smallest set.
SIDES = {"digits": 8, "fashion_mnist": 28, "cifar10": 32}  # Heights of images.


@dataclass(frozen=True)
class Config:
    """One setting; the paper's numbers where the preset is called so."""

    scale: str
    seed: int = 0
    seeds: int = 4
    # The analytic examples.
    grid: int = 41  # Points a side of a surface.
    samples: int = 20_000  # Random points that the constants of the table are over.
    # Half-space learning: sigmoid loss, one example a step.
    halfspace_steps: int = 4000
    # The MLP.
    dataset: str = "digits"  # Images of the figure width: digits, fashion_mnist or cifar10.
    images: str = "digits"  # Images of the other image figures.
    examples: int = 2048  # Training images of the figure width, at most.
    epochs: int = 20  # Passes over them.
    batch: int = 64  # Images in a minibatch.
    widths: tuple[int, ...] = (8, 64, 256)  # Widths of the MLP's second layer.
    first_width: int = 32  # Of the MLP's other hidden layer.
    rate: float = 0.09  # Learning rate of the MLP's gradient descent.
    # The CNN.
    conv_examples: int = 2048  # Training images of the figure channels, at most.
    conv_epochs: int = 10  # Passes over them.
    conv_side: int = 8  # Height of their images, averaged down to it.
    channels: tuple[int, ...] = (4, 16, 64)  # Channels of the CNN's second layer.
    first_channels: int = 8
    conv_rate: float = 0.05  # Learning rate of the CNN's gradient descent.
    # ResNets, with BatchNorm and a one-cycle schedule.
    resnet_examples: int = 1024  # Training images of the ResNets, at most.
    resnet_epochs: int = 10  # Passes over them.
    resnet_side: int = 8  # Height of their images, averaged down to it.
    resnet_widths: tuple[int, ...] = (8, 16, 32, 64)  # Channels of the four stages.
    resnet_rate: float = 0.05  # Their highest learning rate.
    momentum_rate: float = 0.01  # The same with momentum .9.
    adam_rate: float = 2e-3  # The same under Adam.
    batches: tuple[int, ...] = (32, 128)  # Sizes of a minibatch in the figure batch_size.
    batch_steps: int = 0  # Steps of each of them; 0 for resnet_epochs, as in the paper.
    optimizers: tuple[str, ...] = ("sgd", "momentum", "adam")  # In the figure optimizer.
    depths: tuple[int, ...] = (18, 34)  # Layers of the ResNets of the figure depth.
    # The language models. The manual that comes with Python stands in where no text was prepared.
    corpus: str = "python_manual"  # Text: tiny_shakespeare or python_manual.
    text: int = 16_384  # Bytes of it.
    length: int = 32
    text_batch: int = 8
    text_steps: int = 600  # Steps of the transformer.
    lstm_steps: int = 600  # Steps of the LSTM.
    lstm_width: int = 32
    lstm_rate: float = 0.5  # Length of a step of the LSTM's normalised descent.
    text_width: int = 32  # Of the transformer.
    text_layers: int = 2
    heads: int = 2
    text_rate: float = 2e-3  # Of AdamW.
    heat: int = 41  # Pairs a side of a heat map.
    heat_top: float = 2.0  # The largest alpha and beta of the heat maps.


ABOUT = {
    "quick": About(1, claim="A pair for every method. A smoke test: its numbers mean nothing."),
    "cpu": About(
        None, "fashion_mnist, cifar10 and tiny_shakespeare in TFDS_DATA_DIR",
        "The trends at a small size; about 1.5 minutes for width, 2 for optimizer, 5 for "
        "batch_size, 3 for depth, 1 for lstm.",
        "batch sizes and the LSTM's PL constant show their trend; all verdicts are on "
        "docs/papers/alpha_beta.md.",
    ),
    "paper": About(
        None, "fashion_mnist, cifar10 and tiny_shakespeare in TFDS_DATA_DIR",
        "The paper's size, on a GPU.",
        "the smallest pair is largest near width 512 of the MLP and 64 to 128 channels.",
    ),
}  # fmt: skip
PRESETS = {
    "quick": Config(
        scale="A smoke test: 8 x 8 digits and tiny models.",
        seeds=2, grid=21, samples=4000, halfspace_steps=2000, examples=512, epochs=4,
        widths=(8, 64), conv_examples=512, channels=(8,), conv_epochs=1,
        resnet_examples=128, resnet_epochs=2, resnet_widths=(2, 2, 4, 4), batches=(32,),
        optimizers=("adam",), depths=(9,), text=4096, text_steps=40, lstm_steps=40,
        text_width=16, lstm_width=16, length=16, heat=21,
    ),
    "cpu": Config(
        scale=(
            "MLP: 4,096 Fashion-MNIST images for 100 epochs (the paper: 60,000 for 1,500). CNN: "
            "512 CIFAR-10 images averaged down to 16 x 16 pixels for 20 epochs (50,000 of 32 x "
            "32). ResNets: an eighth of the paper's channels, 1,024 images of 8 x 8 pixels for 30 "
            "epochs, or 960 steps with every batch size, CIFAR-10 for CIFAR-100. Language "
            "models: 32 units on 16 kB of Shakespeare (35 to 160 million parameters on PTB, "
            "WikiText-2 and larger sets)."
        ),
        seeds=3, dataset="fashion_mnist", images="cifar10",
        # The paper's rate is .09: at that the loss of the widest never fell below 1.5.
        examples=4096, epochs=100, rate=0.03, widths=(2, 8, 32, 128, 512, 2048),
        conv_examples=512, conv_epochs=20, conv_side=16, channels=(4, 16, 64),
        # Rates under which the three optimisers end at the same loss, .03 to .04 on seed 100.
        resnet_examples=1024, resnet_epochs=30, resnet_rate=0.1, momentum_rate=0.01,
        batches=(32, 64, 128, 256), batch_steps=960, corpus="tiny_shakespeare", lstm_steps=4000,
    ),
    "paper": Config(
        scale=(
            "The paper's size for the MLP, the CNN and the ResNets, with CIFAR-10 for CIFAR-100; "
            "the language models read bytes of Shakespeare, at about the paper's sizes."
        ),
        dataset="fashion_mnist", images="cifar10", examples=60_000, epochs=1500,
        widths=(32, 128, 512, 1024, 2048, 4096),
        conv_examples=50_000, conv_epochs=100, conv_side=32,
        channels=(32, 64, 128, 256, 512, 1024, 2048),
        first_channels=32, conv_rate=0.01,
        resnet_examples=50_000, resnet_epochs=100, resnet_side=32,
        resnet_widths=(64, 128, 256, 512), resnet_rate=0.01, momentum_rate=0.01, adam_rate=1e-3,
        batches=(64, 128, 256, 512),
        corpus="tiny_shakespeare", text=1_003_854, length=128, text_batch=32, text_steps=20_000,
        lstm_steps=20_000, lstm_width=1150, text_width=512, text_layers=6, heads=8,
        text_rate=1e-3,
    ),
}  # fmt: skip


def check(config: Config) -> None:
    """Raise ValueError for settings that cannot work."""
    _check_known(config)
    for name in ("widths", "channels", "batches", "optimizers", "depths"):
        values = getattr(config, name)
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} must be distinct and at least one, got {values}.")
    for name in RATES:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}.")
    _check_counts(config)
    side = SIDES[config.images]
    for name, least in (("conv_side", 4), ("resnet_side", 8)):
        given = getattr(config, name)
        if given < least or side % given:
            raise ValueError(f"{name} must divide {side} and be at least {least}, got {given}.")


def _check_known(config):
    for name, known in KNOWN.items():
        given = getattr(config, name)
        for value in given if isinstance(given, tuple) else (given,):
            if value not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(map(str, known))}, got {value}."
                )


def _check_counts(config):
    counts = {
        "examples": (config.examples, None),
        "epochs": (config.epochs, None),
        "conv_epochs": (config.conv_epochs, None),
        "resnet_epochs": (config.resnet_epochs, None),
        "batch_steps": (config.batch_steps or 1, None),
        "text_steps": (config.text_steps, None),
        "lstm_steps": (config.lstm_steps, None),
        "widths": (config.widths, None),
        "channels": (config.channels, None),
        "batch": (config.batch, min(config.examples, config.conv_examples, DIGITS)),
        "batches": (config.batches, min(config.resnet_examples, DIGITS)),
    }
    for name, (given, limit) in counts.items():
        values = given if isinstance(given, tuple) else (given,)
        if min(values) < 1 or (limit and max(values) > limit):
            allowed = f"lie in [1, {limit}]" if limit else "be at least 1"
            raise ValueError(f"{name} must {allowed}, got {given}.")
