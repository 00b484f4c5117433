# SPDX-License-Identifier: Apache-2.0
"""What a layer under test is."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Layer(NamedTuple):
    """``apply(h, **parameters)`` on activations [b, 2, 4, 3], or [b, 6] if it is no image."""

    apply: Callable[..., Any]
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})  # Of its parameters.
    on_image: bool = True
    mixes: bool = False  # One example decides where the others are read: no kernel.
    is_smooth: bool = True  # Else jax has no reverse derivative: no kernel.
