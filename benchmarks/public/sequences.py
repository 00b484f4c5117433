# SPDX-License-Identifier: Apache-2.0
"""Networks over sequences: recurrent cells, state spaces, memories, spikes."""

import jax
import jax.numpy as jnp

from benchmarks.public.adaptors import (
    KEY,
    Shelf,
    numbers,
    of_equinox,
    of_haiku,
    of_linen,
    of_nnx,
    tokens,
)

SEQUENCES = Shelf("sequences")


def _memory(name, library="equinox"):
    """A residual network of two layers of one of `memax`'s memories."""
    del library
    from memax.equinox.train_utils import get_residual_memory_model

    network = get_residual_memory_model(name, 3, 16, 2, key=KEY)

    def call(network, x):
        starts = jnp.zeros(len(x), bool)
        _, outputs = network(network.initialize_carry(), (x, starts))
        return outputs

    return of_equinox(network, numbers(2, 5, 3), call)


def _put_memories():
    semigroups = ("FFM", "S6", "LRU", "LinearRNN", "GDN", "DeltaNet", "FART", "FWP", "NMax")
    for name in (*semigroups, "PSpherical", "Attention", "GRU", "LSTM"):
        SEQUENCES("memax", name)(lambda name=name: _memory(name))


_put_memories()


def _state_space(layer):
    from rnn_jax import ssm

    network = ssm.DeepStateSpaceModelEncoder(
        3, [layer(3, 8), layer(6, 8)], [ssm.GLUMixer(6, 6, key=KEY)] * 2, in_projection=False,
        out_dim=2, pool_method="last", key=KEY,
    )  # fmt: skip
    return of_equinox(network, numbers(3, 5, 3))


@SEQUENCES("rnn-jax", "linear recurrent units")
def _lru():
    from rnn_jax import ssm

    return _state_space(lambda size, state: ssm.LinearRecurrentUnit(size, state, 6, key=KEY))


@SEQUENCES("rnn-jax", "S5")
def _s5():
    from rnn_jax import ssm

    return _state_space(lambda size, state: ssm.SimplifiedStateSpaceLayer(size, state, 6, key=KEY))


def _mamba(config, network):
    from flax import nnx

    own = config(
        vocab_size=16, hidden_size=8, state_size=4, head_dim=4, chunk_size=4, num_hidden_layers=2
    )
    return of_nnx(network(own, rngs=nnx.Rngs(0)), tokens(2, 8), lambda m, x: m(x)["logits"])


@SEQUENCES("mamba2-jax", "Mamba-2")
def _mamba2():
    from mamba2_jax import Mamba2Config, Mamba2ForCausalLM

    return _mamba(Mamba2Config, Mamba2ForCausalLM)


@SEQUENCES("mamba3-jax", "Mamba-3")
def _mamba3():
    from mamba3_jax import Mamba3Config, Mamba3ForCausalLM

    return _mamba(Mamba3Config, Mamba3ForCausalLM)


@SEQUENCES("equinox", "GRU cell in a scan")
def _equinox_gru():
    import equinox as eqx

    class Network(eqx.Module):
        cell: eqx.nn.GRUCell
        head: eqx.nn.Linear

        def __call__(self, x):
            def step(state, x):
                return self.cell(x, state), None

            return self.head(jax.lax.scan(step, jnp.zeros(6, x.dtype), x)[0])

    network = Network(eqx.nn.GRUCell(3, 6, key=KEY), eqx.nn.Linear(6, 2, key=KEY))
    return of_equinox(network, numbers(3, 5, 3))


def _haiku_core(make, shape, length=5):
    import haiku as hk

    def network(x):
        core = make(hk)
        x = jnp.swapaxes(x, 0, 1)
        states, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))
        return hk.nets.MLP([6, 2])(states[-1].reshape(x.shape[1], -1))

    return of_haiku(network, numbers(2, length, *shape))


@SEQUENCES("dm-haiku", "LSTM")
def _haiku_lstm():
    return _haiku_core(lambda hk: hk.LSTM(6), (3,))


@SEQUENCES("dm-haiku", "GRU")
def _haiku_gru():
    return _haiku_core(lambda hk: hk.GRU(6), (3,))


@SEQUENCES("dm-haiku", "stack of cores with skips")
def _haiku_stack():
    return _haiku_core(lambda hk: hk.deep_rnn_with_skip_connections([hk.GRU(6), hk.LSTM(5)]), (3,))


@SEQUENCES("dm-haiku", "convolutional LSTM")
def _haiku_conv_lstm():
    return _haiku_core(lambda hk: hk.Conv2DLSTM((4, 4), 5, 3), (4, 4, 2), length=3)


@SEQUENCES("flax", "Linen optimised LSTM, both directions")
def _linen_lstm():
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x):
            def run():
                return linen.RNN(linen.OptimizedLSTMCell(6))

            x = linen.Bidirectional(run(), run())(x)
            return linen.Dense(2)(x[:, -1])

    return of_linen(Network(), numbers(3, 5, 3))


@SEQUENCES("flax", "Linen convolutional LSTM")
def _linen_conv_lstm():
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.RNN(linen.ConvLSTMCell(4, (3, 3)))(x)
            return linen.Dense(2)(x[:, -1].mean((1, 2)))

    return of_linen(Network(), numbers(2, 3, 4, 4, 2))


@SEQUENCES("flax", "NNX GRU and simple cells")
def _nnx_cells():
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.RNN(nnx.GRUCell(3, 6, rngs=rngs), rngs=rngs)
            self.second = nnx.RNN(nnx.SimpleCell(6, 5, rngs=rngs), rngs=rngs)
            self.head = nnx.Linear(5, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(self.second(self.first(x))[:, -1])

    return of_nnx(Network(nnx.Rngs(0)), numbers(3, 5, 3))


@SEQUENCES("ion-nn", "S5")
def _ion_s5():
    from ion import nn

    network = nn.S5(3, 6, key=jax.random.key(0))
    return _ion(network)


@SEQUENCES("ion-nn", "LSTM")
def _ion_lstm():
    from ion import nn

    return _ion(nn.LSTM(3, 6, key=jax.random.key(0)))


def _ion(network):
    from benchmarks.public.adaptors import Model

    def apply(network, x):
        return jax.tree.leaves(network(x))[0]

    return Model(apply, network, numbers(2, 5, 3))
