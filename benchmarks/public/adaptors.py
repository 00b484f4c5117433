# SPDX-License-Identifier: Apache-2.0
"""Models of every library as a function of parameters and a batch of inputs."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(0)


class Model(NamedTuple):
    """What the library is asked about."""

    apply: Callable[[Any, Any], Any]
    params: Any
    inputs: Any
    module: Any = None  # An NNX module, which `shrink_model` makes smaller.
    call: Callable[..., Any] = operator.call  # How it is run.


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    kind: str
    package: str  # Distribution, whose version is printed.
    name: str
    build: Callable[[], Model]


class Shelf(list[Entry]):
    """The models of one file; `@shelf(package, name)` puts a builder on it."""

    def __init__(self, kind: str):
        """An empty shelf of one kind."""
        super().__init__()
        self.kind = kind

    def __call__(self, package: str, name: str):
        """Decorator of a builder."""

        def put(build):
            self.append(Entry(self.kind, package, name, build))
            return build

        return put


def numbers(*shape: int, seed: int = 0) -> jax.Array:
    """Inputs that have nothing special."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.result_type(float))


def tokens(*shape: int, below: int = 16) -> jax.Array:
    """Integers in [0, below)."""
    return jnp.asarray(np.random.default_rng(0).integers(0, below, shape), jnp.int32)


def lively(params: Any) -> Any:
    """Parameters that are all equal, as new biases and scales are, moved apart."""
    rng = np.random.default_rng(7)

    def moved(leaf):
        leaf = jnp.asarray(leaf)
        if leaf.dtype.kind not in "fc" or leaf.size < 2 or not (leaf == leaf.ravel()[0]).all():
            return leaf
        noise = jnp.asarray(rng.uniform(0.8, 1.2, leaf.shape), leaf.dtype)
        return leaf * noise if leaf.ravel()[0] != 0 else 0.3 * (noise - 1)

    return jax.tree.map(moved, params)


def of_equinox(model: Any, inputs: Any, call: Callable[..., Any] | None = None) -> Model:
    """An Equinox module that sees one example at a time: ``call(model, x)``, `model(x)` if None."""
    import equinox as eqx

    arrays, rest = eqx.partition(model, eqx.is_inexact_array)

    def apply(arrays, inputs):
        whole = eqx.combine(arrays, rest)
        return jax.vmap(lambda x: whole(x) if call is None else call(whole, x))(inputs)

    return Model(apply, arrays, inputs)


def of_linen(module: Any, inputs: Any, *, init: Any = None, **keywords: Any) -> Model:
    """A Linen module on its inputs; keywords of its call."""
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    keys = {"params": KEY, "dropout": KEY}
    variables = module.init(keys, *args, **{**keywords, **(init or {})})

    def apply(variables, inputs):
        args = inputs if isinstance(inputs, tuple) else (inputs,)
        return module.apply(variables, *args, **keywords)

    return Model(apply, dict(variables), inputs)


def of_nnx(module: Any, inputs: Any, call: Callable[..., Any] | None = None) -> Model:
    """An NNX module in evaluation mode."""
    from plprune.functional import functional, paired

    call = call or operator.call
    parts = functional(module, call=call)
    return Model(paired(parts), (parts.params, parts.state), inputs, module, call)


def of_haiku(function: Callable[..., Any], inputs: Any, **first: Any) -> Model:
    """A function that uses Haiku modules; keywords of the call that makes its parameters."""
    import haiku as hk

    init, apply = hk.without_apply_rng(hk.transform_with_state(function))
    params, state = init(KEY, inputs, **first)
    return Model(lambda pair, inputs: apply(*pair, inputs)[0], (params, state), inputs)


def of_keras(model: Any, inputs: Any) -> Model:
    """A Keras model on its JAX backend."""
    model(inputs)

    def named(variables):
        return {v.path: jnp.asarray(v.value) for v in variables}

    trained, kept = named(model.trainable_variables), named(model.non_trainable_variables)

    def apply(pair, inputs):
        lists = (
            [values[name] for name in order] for values, order in zip(pair, orders, strict=True)
        )
        return model.stateless_call(*lists, inputs, training=False)[0]

    orders = tuple(trained), tuple(kept)
    return Model(apply, (trained, kept), inputs)
