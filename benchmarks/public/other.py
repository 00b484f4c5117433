# SPDX-License-Identifier: Apache-2.0
"""Monotone, compressed, spiking and other networks."""

import jax

from benchmarks.public.adaptors import Model, Shelf, numbers, of_nnx

OTHER = Shelf("other")


@OTHER("mononet", "monotone residual network")
def _monotone():
    from flax import nnx
    from mononet.jax import MonoLinear, MonoResidual

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first = MonoLinear(3, 6, activation="elu", rngs=rngs)
            self.middle = MonoResidual(6, 6, activation="elu", rngs=rngs)
            self.head = MonoLinear(6, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(self.middle(self.first(x)))

    return of_nnx(Network(nnx.Rngs(0)), numbers(4, 3))


@OTHER("jaxzoo", "MLP of spaces")
def _zoo():
    from jaxzoo import mlp, spaces

    net = mlp.JaxzooMLP(spaces.ContinuousSpace((3,)), spaces.ContinuousSpace((2,)), [6, 5], "relu")
    inputs = numbers(4, 3)
    params = net.init(jax.random.key(0), inputs[0], jax.random.key(0))

    def apply(params, x):
        return jax.vmap(lambda x: jax.tree.leaves(net.apply(params, x, jax.random.key(0)))[0])(x)

    return Model(apply, params, inputs)
