# SPDX-License-Identifier: Apache-2.0
"""Attention against Flax's own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.models.attention import dot_product_attention

pytestmark = pytest.mark.usefixtures("models_broadcast")
TOKENS = np.array([[1, 2, 3, 4, 5], [6, 5, 4, 3, 2]])


def test_attention_equals_the_library_s(key):
    query, keys, values = jax.random.normal(key, (3, 2, 5, 2, 4), jnp.float32)
    mask = nnx.make_causal_mask(TOKENS, dtype=bool)
    expected = jax.nn.dot_product_attention(query, keys, values, mask=mask)
    outputs = jax.jit(dot_product_attention)(query, keys, values, mask)
    chex.assert_trees_all_close(outputs, expected, rtol=1e-4, atol=1e-5)
