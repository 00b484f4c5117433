# SPDX-License-Identifier: Apache-2.0
"""Random small architectures against the reference, and lowering for accelerators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plprune.constants import pl_constant
from plprune.kernels import tangent_kernel
from plprune.operators import flat, hessian_product
from tests import problems
from tests.kernels.models import conv

pytestmark = pytest.mark.usefixtures("models_broadcast")

layers = st.lists(
    st.sampled_from(["dense", "bias", "scale", "norm", "conv", "grouped", "same", "transposed"]),
    min_size=1,
    max_size=4,
)


def random_model(names):
    """[b, s, 4] to [b, 2] through the named layers; "same" uses one matrix at each mention."""
    shapes = {
        "dense": (4, 4),
        "bias": (4,),
        "scale": (4,),
        "norm": (4,),
        "conv": (3, 4, 4),
        "grouped": (3, 2, 4),
        "same": (4, 4),
        "transposed": (4, 4),
    }
    keys = ["same" if n in ("same", "transposed") else f"{k}{n}" for k, n in enumerate(names)]
    rng = np.random.default_rng(len(names))
    params = {
        k: jnp.asarray(rng.normal(size=shapes[n]) / 2) for k, n in zip(keys, names, strict=True)
    }
    params["out"] = jnp.asarray(rng.normal(size=(4, 2)))

    def apply(p, x):
        for k, n in zip(keys, names, strict=True):
            x = jnp.tanh(layer(n, x, p[k])) + x
        return jnp.mean(x, axis=1) @ p["out"]

    return apply, params


def layer(name, x, w):
    if name in ("dense", "same"):
        return x @ w
    if name == "transposed":
        return jnp.einsum("bsi,oi->bso", x, w)
    if name == "bias":
        return x + w
    if name == "norm":
        return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 0.1) * w
    if name == "scale":
        return x * w
    return conv(x, w, feature_group_count=2 if name == "grouped" else 1)


@given(names=layers, size=st.integers(1, 3), positions=st.integers(1, 3))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_random_architectures(names, size, positions):
    apply, params = random_model(names)
    inputs = jnp.asarray(np.random.default_rng(size).normal(size=(size, positions, 4)))
    with jax.numpy_rank_promotion("allow"):
        kernel = jax.jit(lambda p, x: tangent_kernel(apply, p, x))(params, inputs)
        expected = problems.reference_kernel(apply, params, inputs)
    np.testing.assert_allclose(kernel, expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lowers_for_accelerators(platform):
    """Nothing here needs the accelerator itself."""
    single = jnp.float32
    params = problems.mlp_params(jax.random.key(0), (4, 6, 3), single)
    inputs = jnp.ones((40, 4), single)

    def objective(p, x):
        return jnp.mean(problems.mlp(p, x) ** 2)

    def everything(p, x):
        product = flat(hessian_product(objective, p, x), p)
        vector = jnp.ones(sum(leaf.size for leaf in jax.tree.leaves(p)), single)
        kernel = tangent_kernel(problems.mlp, p, x, tile=16)
        return kernel, product(vector), pl_constant(problems.mlp, p, x)

    exported = jax.export.export(jax.jit(everything), platforms=[platform])(params, inputs)
    assert exported.platforms == (platform,)
