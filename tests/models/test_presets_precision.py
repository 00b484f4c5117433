# SPDX-License-Identifier: Apache-2.0
"""Models compute in the type of their parameters: in float64 nothing passes through float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.models import (
    CNN,
    MLP,
    VGG,
    CausalTransformer,
    Encoder,
    LSTMLanguageModel,
    ResNet,
    ResNet9,
    SwitchTransformer,
    WideResNet,
)

pytestmark = pytest.mark.usefixtures("models_broadcast")
IMAGES = np.zeros((2, 8, 8, 1))
TOKENS = np.zeros((2, 3), int)
TEXT = (7, 5, 8, 1, 2, 6)
MODELS = {
    "mlp": (IMAGES, lambda rngs: MLP(64, (3,), 2, parameterization="ntk", rngs=rngs)),
    "cnn": (IMAGES, lambda rngs: CNN((8, 8, 1), (2,), (3,), rngs=rngs)),
    "resnet": (IMAGES, lambda rngs: ResNet(1, (1,), (2,), rngs=rngs)),
    "resnet9": (IMAGES, lambda rngs: ResNet9(1, (2, 2, 2, 2), rngs=rngs)),
    "wide": (IMAGES, lambda rngs: WideResNet(1, 10, 1, rngs=rngs)),
    "vgg": (IMAGES, lambda rngs: VGG(1, ((2,),), rngs=rngs)),
    "encoder": (TOKENS, lambda rngs: Encoder(*TEXT, rngs=rngs)),
    "causal": (TOKENS, lambda rngs: CausalTransformer(*TEXT, tied=True, rngs=rngs)),
    "switch": (TOKENS, lambda rngs: SwitchTransformer(*TEXT, 2, rngs=rngs)),
    "lstm": (TOKENS, lambda rngs: LSTMLanguageModel(7, 4, (3,), rngs=rngs)),
}


@pytest.mark.parametrize("name", MODELS)
def test_double_parameters_are_used_in_double(name, fill):
    inputs, build = MODELS[name]
    net, params, state = fill(build)
    double = jax.tree.map(lambda p: p.astype(jnp.float64), (params, state))
    jaxpr = str(jax.make_jaxpr(net.apply)(*double, inputs))
    assert "f64[" in jaxpr
    assert "f32[" not in jaxpr
