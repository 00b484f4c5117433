# SPDX-License-Identifier: Apache-2.0
"""One model of each kind as its library has it, for `plprune.prune` and for training with gates.

Sizes are those of a laptop's test, but for the two full convolutional networks.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.public.adaptors import KEY, lively, numbers, tokens
from benchmarks.public.graphs import GRAPHS
from benchmarks.public.language import llama, qwen_experts, tunix_call
from plprune.functional import (
    Functional,
    functional,
    functional_equinox,
    functional_haiku,
)
from plprune.losses import cross_entropy, squared_error


class Whole(NamedTuple):
    """A model, what it is trained on, and how it is given to `prune`."""

    model: Any  # As `prune` takes it.
    parts: Functional  # The same, taken apart.
    inputs: Any
    options: Mapping[str, Any] = MappingProxyType({})  # Of `prune`.
    loss: Callable[..., jax.Array] = cross_entropy
    independent: bool = False  # Examples are, where the graph does not prove it.

    def labels(self) -> jax.Array:
        """Of the inputs: classes where outputs end in logits, else a field of their shape."""
        outputs = jax.eval_shape(self.parts.apply, self.parts.params, self.parts.state, self.inputs)
        if self.loss is cross_entropy:
            return tokens(*outputs.shape[:-1], below=outputs.shape[-1])
        return numbers(*outputs.shape, seed=3)


WHOLES: dict[str, Callable[[], Whole]] = {}


def _whole(title):
    def put(build):
        WHOLES[title] = build
        return build

    return put


def _nnx(module, inputs, call=None) -> Whole:
    options = {} if call is None else {"call": call}
    parts = functional(module, **options)
    module = parts.rebuild(lively(parts.params), parts.state)
    return Whole(module, functional(module, **options), inputs, options)


def _equinox(module, inputs, call=None) -> Whole:
    options = {} if call is None else {"call": call}
    parts = functional_equinox(module, **options)
    module = parts.rebuild(lively(parts.params), parts.state)
    return Whole(module, functional_equinox(module, **options), inputs, options)


def of_function(apply: Any, params: Any, inputs: Any) -> Whole:
    """A function without state, in training the same as in evaluation."""

    def train(params, state, inputs, *, key):
        del key
        return apply(params, inputs), state

    parts = Functional(params, {}, lambda p, _, x: apply(p, x), train, lambda p, _: p)
    return Whole((apply, params), parts, inputs)


@_whole("ResNet-20 (NNX), 32 x 32")
def _resnet() -> Whole:
    from flax import nnx

    from plprune.models import ResNet

    return _nnx(ResNet(rngs=nnx.Rngs(0)), numbers(8, 32, 32, 3))


@_whole("ViT (NNX), two blocks")
def _vision_transformer() -> Whole:
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.norms = nnx.List([nnx.LayerNorm(16, rngs=rngs) for _ in range(2)])
            self.attention = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
            self.up, self.down = nnx.Linear(16, 32, rngs=rngs), nnx.Linear(32, 16, rngs=rngs)

        def __call__(self, x):
            x = x + self.attention(self.norms[0](x))
            return x + self.down(nnx.gelu(self.up(self.norms[1](x))))

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.patches = nnx.Conv(3, 16, (4, 4), strides=4, rngs=rngs)
            self.places = nnx.Param(jax.random.normal(rngs.params(), (16, 16)))
            self.blocks = nnx.List([Block(rngs) for _ in range(2)])
            self.head = nnx.Linear(16, 5, rngs=rngs)

        def __call__(self, x):
            x = self.patches(x)
            x = x.reshape(len(x), -1, x.shape[-1]) + self.places
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(1))

    return _nnx(Network(nnx.Rngs(0)), numbers(8, 16, 16, 3))


@_whole("ViT with registers (equimo)")
def _equimo_vit() -> Whole:
    from equimo.models import VisionTransformer

    module = VisionTransformer(16, 3, 8, 8, 2, [2], num_classes=5, key=KEY)
    return _equinox(module, numbers(8, 3, 16, 16), lambda net, x: net(x, KEY, inference=True))


@_whole("Llama 3 (tunix), two layers")
def _llama() -> Whole:
    return _nnx(llama(), tokens(4, 6), tunix_call)


@_whole("Qwen 3 with experts (tunix), two layers")
def _qwen() -> Whole:
    return _nnx(qwen_experts(), tokens(4, 6), tunix_call)


@_whole("U-Net (Equinox), two levels")
def _unet() -> Whole:
    import equinox as eqx

    class Network(eqx.Module):
        stem: eqx.nn.Conv2d
        norm: eqx.nn.GroupNorm
        down: eqx.nn.Conv2d
        inner: eqx.nn.Conv2d
        up: eqx.nn.ConvTranspose2d
        merge: eqx.nn.Conv2d
        head: eqx.nn.Conv2d

        def __init__(self, key):
            keys = iter(jax.random.split(key, 6))
            self.stem = eqx.nn.Conv2d(3, 16, 3, padding=1, key=next(keys))
            self.norm = eqx.nn.GroupNorm(4, 16)
            self.down = eqx.nn.Conv2d(16, 32, 2, stride=2, key=next(keys))
            self.inner = eqx.nn.Conv2d(32, 32, 3, padding=1, key=next(keys))
            self.up = eqx.nn.ConvTranspose2d(32, 16, 2, stride=2, key=next(keys))
            self.merge = eqx.nn.Conv2d(32, 16, 3, padding=1, key=next(keys))
            self.head = eqx.nn.Conv2d(16, 2, 1, key=next(keys))

        def __call__(self, x):
            x = jax.nn.relu(self.norm(self.stem(x)))
            y = jax.nn.relu(self.inner(jax.nn.relu(self.down(x))))
            return self.head(jax.nn.gelu(self.merge(jnp.concatenate([x, self.up(y)]))))

    return _equinox(Network(KEY), numbers(4, 3, 8, 8))._replace(loss=squared_error)


@_whole("U-Net (pdequinox)")
def _pde_unet() -> Whole:
    import pdequinox

    net = pdequinox.arch.ClassicUNet(
        1, 2, 1, hidden_channels=6, num_levels=2, use_norm=False, key=KEY
    )
    return _equinox(net, numbers(4, 2, 16))._replace(loss=squared_error)


@_whole("MobileNet (Haiku), 32 x 32")
def _mobilenet() -> Whole:
    import haiku as hk

    def network(x, is_training):
        return hk.nets.MobileNetV1(num_classes=10)(x, is_training)

    net, inputs = hk.transform_with_state(network), numbers(8, 32, 32, 3)
    params, state = jax.jit(lambda x: net.init(KEY, x, is_training=True))(inputs)
    options = {"evaluation": {"is_training": False}}
    model = (net, lively(params), state)
    training = {"training": {"is_training": True}}
    return Whole(model, functional_haiku(*model, **options, **training), inputs, options)


@_whole("graph attention (jraph)")
def _graph_attention() -> Whole:
    (entry,) = (e for e in GRAPHS if (e.package, e.name) == ("jraph", "graph attention"))
    return of_function(*entry.build()[:3])


@_whole("graph attention, two layers of heads")
def _graph_attention_heads() -> Whole:
    """One graph for all examples; heads are joined after the first layer, added up after it."""
    shapes = {
        "first": {"lift": (3, 4, 6), "sent": (4, 6), "received": (4, 6)},
        "second": {"lift": (24, 4, 6), "sent": (4, 6), "received": (4, 6)},
        "head": (6, 2),
    }
    params = drawn(shapes)
    senders, receivers = tokens(2, 12, below=9)

    def attended(weights, x):
        lifted = jnp.einsum("nd,dhf->nhf", x, weights["lift"])
        sent, received = (jnp.sum(lifted * weights[n], -1) for n in ("sent", "received"))
        scores = jax.nn.leaky_relu(sent[senders] + received[receivers])
        scores = jnp.exp(scores)
        sums = jax.ops.segment_sum(scores, receivers, 9)
        shares = scores / (sums + 1e-6)[receivers]
        return jax.ops.segment_sum(lifted[senders] * shares[:, :, None], receivers, 9)

    def apply(params, x):
        def one(x):
            x = jax.nn.elu(attended(params["first"], x)).reshape(9, -1)
            return jax.nn.elu(attended(params["second"], x)).sum(1).sum(0) @ params["head"]

        return jax.vmap(one)(x)

    return of_function(apply, params, numbers(4, 9, 3))


@_whole("Fourier neural operator (pdequinox)")
def _pde_operator() -> Whole:
    import pdequinox

    net = pdequinox.arch.ClassicFNO(1, 2, 1, hidden_channels=6, num_modes=4, num_blocks=2, key=KEY)
    return _equinox(net, numbers(4, 2, 16))._replace(loss=squared_error)


@_whole("Fourier neural operator")
def _operator() -> Whole:
    """Two Fourier layers with pointwise bypasses, between pointwise perceptrons."""
    blocks = {f"block {k}": {"modes": (4, 8, 8), "bypass": (8, 8)} for k in range(2)}
    params = drawn({"lift": (1, 12), "enter": (12, 8), **blocks, "leave": (8, 12), "head": (12, 1)})

    def apply(params, x):
        x = jax.nn.gelu(x @ params["lift"]) @ params["enter"]
        for name in blocks:
            spectrum = jnp.fft.rfft(x, axis=1)[:, :4]
            mixed = jnp.einsum("bkc,kcd->bkd", spectrum, params[name]["modes"])
            x = jnp.fft.irfft(mixed, n=x.shape[1], axis=1) + x @ params[name]["bypass"]
            x = jax.nn.gelu(x)
        return jax.nn.gelu(x @ params["leave"]) @ params["head"]

    return of_function(apply, params, numbers(4, 16, 1))._replace(loss=squared_error)


def drawn(shapes: Any) -> Any:
    """Normal weights in a tree of shapes, scaled by all but their last axis."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: jnp.asarray(
            rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32
        ),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
