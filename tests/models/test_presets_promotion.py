# SPDX-License-Identifier: Apache-2.0
"""Every model of the zoo where neither ranks nor dtypes may be promoted silently."""

import jax
import jax.numpy as jnp
import pytest

from plprune.models import CNN, MLP, VGG
from plprune.models.presets import PRESETS

IMAGES, TOKENS = ("resnet9", "resnet18", "wide_resnet"), ("lstm", "encoder", "switch")
SMALL = {
    "resnet9": {"widths": (2, 2, 2, 2)},
    "resnet18": {"widths": (2, 2, 2, 2)},
    "wide_resnet": {"depth": 10, "widening": 1},
    "lstm": {"vocabulary": 7, "embedding": 4, "hidden": (4,), "tied": True},
    "encoder": {"features": 8, "heads": 2, "width": 4, "layers": 1},
    "switch": {"features": 8, "heads": 2, "width": 4, "layers": 1},
}
MODELS = {
    "mlp": (lambda rngs: MLP(192, (4,), 3, rngs=rngs), "image"),
    "ntk": (lambda rngs: MLP(192, (4,), 3, parameterization="ntk", rngs=rngs), "image"),
    "cnn": (lambda rngs: CNN((8, 8, 3), (2,), (4,), 3, rngs=rngs), "image"),
    "cnn_bias": (lambda rngs: CNN((8, 8, 3), (2,), batch_norm=False, rngs=rngs), "image"),
    "vgg": (lambda rngs: VGG(3, ((2,),), (4,), 3, conv_bias=True, rngs=rngs), "image"),
    "causal": (
        lambda rngs: preset("causal_transformer", rngs, **SMALL["encoder"], tied=True),
        "tokens",
    ),
    "unrolled": (lambda rngs: preset("lstm", rngs, **SMALL["lstm"], unroll=True), "tokens"),
}
MODELS |= {name: (lambda rngs, n=name: preset(n, rngs, **SMALL[n]), "image") for name in IMAGES}
MODELS |= {name: (lambda rngs, n=name: preset(n, rngs, **SMALL[n]), "tokens") for name in TOKENS}


def preset(name, rngs, **changes):
    found = PRESETS[name]["cpu"]
    return found.model(**{**found.sizes, **changes}, rngs=rngs)


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize("name", MODELS)
def test_models_train_and_evaluate_without_promotion(name, fill, key):
    build, kind = MODELS[name]
    net, params, state = fill(build)
    image, tokens = jnp.ones((2, 8, 8, 3), jnp.float32), jnp.ones((2, 5), jnp.int32)
    inputs = image if kind == "image" else tokens

    def total(params):
        trained, _ = net.train(params, state, inputs, key=key)
        return jnp.sum(trained) + jnp.sum(net.apply(params, state, inputs))

    with jax.numpy_rank_promotion("raise"):
        jax.eval_shape(jax.grad(total), params)
