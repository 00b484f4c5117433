# SPDX-License-Identifier: Apache-2.0
"""What pruning would leave, from shapes, is what it leaves; models may be of any size."""

from functools import partial

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import plprune
from plprune import Target, costs
from plprune.models import MLP

pytestmark = pytest.mark.usefixtures("models_broadcast")
KEY = jax.random.key(0)
INPUTS = jax.ShapeDtypeStruct((3, 4), jnp.float32)


def nnx_model(width=10):
    return MLP(4, (width, 6), 2, rngs=nnx.Rngs(0))


def linen_model():
    module = linen.Sequential([linen.Dense(10), jnp.tanh, linen.Dense(2)])
    return module, module.init(KEY, jnp.zeros((1, 4)))


def haiku_model():
    transformed = hk.transform(lambda x: hk.nets.MLP([10, 2])(x))
    return transformed, transformed.init(KEY, jnp.zeros((1, 4)))


def equinox_model():
    return eqx.nn.MLP(4, 2, 10, 2, key=KEY)


def function():
    def apply(params, x):
        return jnp.tanh(x @ params["up"]) @ params["down"]

    return apply, {"up": jnp.ones((4, 10)), "down": jnp.ones((10, 2))}


MODELS = {
    "nnx": (nnx_model, nnx.eval_shape),
    "linen": (linen_model, eqx.filter_eval_shape),
    "haiku": (haiku_model, eqx.filter_eval_shape),
    "equinox": (equinox_model, eqx.filter_eval_shape),
    "function": (function, eqx.filter_eval_shape),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_from_shapes_is_what_prune_does(name):
    make, abstract = MODELS[name]
    planned = plprune.plan(abstract(make), INPUTS, keep_fraction=0.5)
    of_arrays = plprune.plan(make(), jnp.ones((3, 4), jnp.float32), keep_fraction=0.5)
    assert str(planned) == str(of_arrays)
    assert np.isnan([own[3:] for own in planned.comparison]).all()
    assert not {"seconds", "bytes accessed"} & {x.split("  ")[0] for x in str(planned).split("\n")}
    if name in ("nnx", "equinox"):  # Comparing the smaller module with its function takes seconds.
        assert 0.3 < planned.comparison.ratios.parameters < 0.6
        return
    pruned = plprune.prune(
        make(), jnp.ones((3, 4), jnp.float32), keep_fraction=0.5, score="magnitude"
    )
    assert planned.keep.keys() == pruned.keep.keys()
    for group, kept in planned.keep.items():
        assert kept.sum() == pruned.keep[group].sum()
    for ours, theirs in zip(planned.comparison, pruned.comparison, strict=True):
        assert ours[:2] == theirs[:2]
        assert 0.8 < ours.flops / theirs.flops < 1.25


def test_a_limit_is_met_in_multiples():
    planned = plprune.plan(
        nnx.eval_shape(partial(nnx_model, 10**4 + 7)),
        INPUTS, target=Target(parameters=6e4), round_to=1000,
    )  # fmt: skip
    assert planned.comparison.before.parameters > 1e5
    after = planned.comparison.after.parameters
    assert 6e4 - 12_000 < after <= 6e4
    assert planned.keep["hidden_0"].sum() % 1000 == 0
    assert planned.keep["hidden_1"].all()  # It has fewer nodes than a multiple.


def test_weights_that_are_larger_than_memory_are_not_allocated():
    def apply(params, x):
        return jnp.tanh(jnp.tanh(x @ params["in"]) @ params["wide"]) @ params["out"]

    size = 5 * 10**4
    shapes = {"in": (4, size), "wide": (size, size), "out": (size, 2)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    planned = plprune.plan((apply, params), INPUTS, keep_fraction=0.5)
    assert planned.comparison.before.parameter_bytes > 9 * 10**9
    assert planned.comparison.ratios.parameters == pytest.approx(0.25, rel=1e-3)


def test_scores_decide_and_repeated_layers_are_one_line():
    def apply(params, x):
        for layer in params["layers"]:
            x = x + jnp.tanh(x @ layer["up"]) @ layer["down"]
        return x

    layer = {"up": jax.ShapeDtypeStruct((4, 8), "float32"),
             "down": jax.ShapeDtypeStruct((8, 4), "float32")}  # fmt: skip
    params = {"layers": [layer] * 3}
    scores = {f"layers.{k}": np.arange(8.0) for k in range(3)}
    planned = plprune.plan((apply, params), INPUTS, keep_fraction=0.25, scores=scores)
    assert np.array_equal(planned.keep["layers.1"], np.arange(8) >= 6)
    assert str(planned).splitlines()[-1] == "layers.* (3 times)  2 of 8 neurons"
    assert planned.comparison.after.parameters == costs.parameters(params) / 4


def test_stacked_layers_have_the_operations_of_all_of_them():
    def stacked(params, x):
        return jax.lax.scan(lambda x, layer: (through(x, layer), None), x, params)[0]

    def unrolled(params, x):
        for k in range(7):
            x = through(x, {name: leaf[k] for name, leaf in params.items()})
        return x

    def through(x, layer):
        return x + jnp.tanh(x @ layer["up"]) @ layer["down"]

    params = {"up": jax.ShapeDtypeStruct((7, 4, 40), "float32"),
              "down": jax.ShapeDtypeStruct((7, 40, 4), "float32")}  # fmt: skip
    one, other = (plprune.plan((f, params), INPUTS, keep_fraction=0.5) for f in (stacked, unrolled))
    for ours, theirs in zip(one.comparison, other.comparison, strict=True):
        assert ours.flops == pytest.approx(theirs.flops, rel=0.3)  # Taking slices counts too.
        assert ours.parameters == theirs.parameters


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "one of keep_fraction and target"),
        ({"keep_fraction": 0.5, "target": Target(bytes=9)}, "one of keep_fraction and target"),
        ({"keep_fraction": 0.0}, "keep_fraction must lie"),
        ({"target": Target(seconds=1)}, "shapes cannot be timed"),
        ({"target": Target(parameters=3)}, "parameters must be at least"),
        ({"keep_fraction": 0.5, "budget": "cost"}, "budget must be one of"),
        ({"keep_fraction": 0.5, "scores": {"none": [1.0]}}, "scores names"),
    ],
)
def test_bad_input_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        plprune.plan(nnx.eval_shape(nnx_model), INPUTS, **options)
