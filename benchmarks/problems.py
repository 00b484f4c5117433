# SPDX-License-Identifier: Apache-2.0
"""The arrays that all contestants get: seeded NumPy, no framework."""

from itertools import pairwise

import numpy as np


def mlp(widths: tuple[int, ...], num_examples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """ReLU net: weights w0, b0, ..., inputs x [n, d], labels y [n]."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for k, (fan_in, width) in enumerate(pairwise(widths)):
        arrays[f"w{k}"] = rng.normal(size=(fan_in, width)) * np.sqrt(2 / fan_in)
        arrays[f"b{k}"] = 0.1 * rng.normal(size=width)
    arrays["x"] = rng.normal(size=(num_examples, widths[0]))
    single = {name: a.astype(np.float32) for name, a in arrays.items()}
    return single | {"y": rng.integers(0, widths[-1], num_examples)}


def cnn(num_examples: int, seed: int = 0, *, pooled: bool = True) -> dict[str, np.ndarray]:
    """Two 3x3 convolutions (16, 32 channels) on 16x16x3, each pooled by 2; then dense.

    The dense layer reads the mean of the 4x4 positions if `pooled`, else all of them.
    """
    rng = np.random.default_rng(seed)
    shapes = {"w0": (3, 3, 3, 16), "w1": (3, 3, 16, 32), "w2": (32 if pooled else 512, 10)}
    arrays = {
        name: rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        for name, shape in shapes.items()
    }
    arrays |= {f"b{k}": 0.1 * rng.normal(size=width) for k, width in enumerate((16, 32, 10))}
    arrays["x"] = rng.normal(size=(num_examples, 16, 16, 3))
    return {name: a.astype(np.float32) for name, a in arrays.items()}


def transformer(
    num_examples: int, *, layers: int = 4, width: int = 64, tokens: int = 32, seed: int = 0
) -> dict[str, np.ndarray]:
    """Causal transformer with 4 heads, its layers stacked; x [n, tokens] of 128 kinds, 10 outputs.

    The layers have no biases, which leaves the matrices: all that takes time.
    """
    rng, heads = np.random.default_rng(seed), 4
    shapes = {
        "embedding": (128, width), "positions": (tokens, width), "output": (width, 10),
        "heads": (layers, 3, width, heads, width // heads),
        "mix": (layers, heads, width // heads, width),
        "up": (layers, width, 4 * width), "down": (layers, 4 * width, width),
    }  # fmt: skip
    arrays = {
        name: rng.normal(size=shape) / np.sqrt(4 * width if name == "down" else width)
        for name, shape in shapes.items()
    }
    arrays |= {f"norm_{k}": np.ones((layers, width)) for k in range(2)}
    single = {name: a.astype(np.float32) for name, a in arrays.items()}
    return single | {"x": rng.integers(0, 128, (num_examples, tokens), np.int32)}


def images(num_examples: int, side: int = 32, seed: int = 0) -> dict[str, np.ndarray]:
    """Images x [n, side, side, 3] for a net that brings its own parameters."""
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(num_examples, side, side, 3)).astype(np.float32)}


def kernel_factor(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """J [size, 2 size] of a kernel J J' with condition number of some thousands."""
    rng = np.random.default_rng(seed)
    scales = np.geomspace(1, 0.05, 2 * size)
    return {"factor": (rng.normal(size=(size, 2 * size)) * scales).astype(np.float32)}
