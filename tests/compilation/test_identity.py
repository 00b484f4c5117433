# SPDX-License-Identifier: Apache-2.0
"""Functions that cannot be told apart have one identity; whatever they read tells them apart."""

import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from plprune.compilation import UnknownError, identity
from plprune.functional import functional, stateless
from plprune.kernels import tangent_kernel
from plprune.models import MLP

SCALE = 2.0


def reads_a_global(params, inputs):
    return SCALE * inputs @ params


def scaled(factor):
    return lambda params, inputs: factor * inputs @ params


def same(one, other):
    return identity(one) == identity(other) and hash(identity(one)) == hash(identity(other))


def test_a_lambda_written_again_is_the_same():
    first = [lambda p, x: jnp.tanh(x @ p)]
    again = [lambda weights, batch: jnp.tanh(batch @ weights)]
    other = [lambda p, x: jnp.sin(x @ p)]
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize(
    ("value", "equal", "other"),
    [
        (2.0, 2.0, 3.0),
        (2, 2, 2.0),
        (True, True, 1),
        ("a", "a", "b"),
        ((1, [2, {"k": 3}]), (1, [2, {"k": 3}]), (1, [2, {"k": 4}])),
        (np.arange(3), np.arange(3), np.arange(3.0)),
        ({1, 2}, {2, 1}, {1, 3}),
        (partial(pow, 2), partial(pow, 2), partial(pow, 3)),
        (jnp.tanh, jnp.tanh, jnp.sin),
        (float("nan"), float("nan"), 1.0),
        (None, None, 0),
    ],
)
def test_what_is_closed_over_is_compared_by_value(value, equal, other):
    assert same(scaled(value), scaled(equal))
    assert not same(scaled(value), scaled(other))


def test_small_arrays_of_jax_are_compared_by_value():
    assert same(scaled(jnp.ones(2)), scaled(jnp.ones(2)))
    assert not same(scaled(jnp.ones(2)), scaled(jnp.zeros(2)))
    assert same(scaled(jax.random.key(1)), scaled(jax.random.key(1)))
    assert not same(scaled(jax.random.key(1)), scaled(jax.random.key(2)))


def test_large_arrays_of_jax_are_compared_by_identity():
    array = jnp.ones(1000)
    assert same(scaled(array), scaled(array))
    assert not same(scaled(array), scaled(jnp.ones(1000)))


def test_an_array_that_is_gone_is_like_no_other():
    array = jnp.ones(1000)
    before = identity(array)
    del array
    assert before != identity(jnp.ones(1000))


def test_a_global_that_changed_is_seen(monkeypatch):
    before = identity(reads_a_global)
    assert before == identity(reads_a_global)
    monkeypatch.setitem(reads_a_global.__globals__, "SCALE", 3.0)
    assert before != identity(reads_a_global)


def test_a_list_that_changed_is_seen():
    widths = [1, 2]

    def function():
        return widths

    before = identity(function)
    widths.append(3)
    assert before != identity(function)


def test_defaults_and_inner_functions_are_read():
    def make(factor):
        def outer(x, scale=factor):
            return (lambda y: y * scale)(x)

        return outer

    assert same(make(2.0), make(2.0))
    assert not same(make(2.0), make(3.0))


def test_a_function_may_name_itself():
    def depth(n):
        return 0 if n == 0 else depth(n - 1)

    assert same(depth, depth)


@pytest.mark.parametrize(
    "wrap",
    [jax.jit, jax.checkpoint, jax.custom_jvp, jax.grad, partial(jax.vmap, in_axes=(None, 0))],
)
def test_wrapped_functions_are_looked_into(wrap):
    assert same(wrap(scaled(2.0)), wrap(scaled(2.0)))
    assert not same(wrap(scaled(2.0)), wrap(scaled(3.0)))


def test_another_derivative_rule_is_another_function():
    def ruled(slope):
        function = jax.custom_jvp(lambda x: x)
        function.defjvp(lambda primals, tangents: (primals[0], slope * tangents[0]))
        return function

    assert same(ruled(2.0), ruled(2.0))
    assert not same(ruled(2.0), ruled(3.0))


def test_modules_taken_apart_twice_are_the_same():
    def apply(width):
        return stateless(functional(MLP(3, (width,), 2, rngs=nnx.Rngs(0))))

    assert same(apply(4), apply(4))
    assert not same(apply(4), apply(5))


def test_linen_modules_are_compared_by_their_fields():
    def apply(width):
        model = linen.Dense(width)
        return lambda params, inputs: model.apply(params, inputs)

    assert same(apply(4), apply(4))
    assert not same(apply(4), apply(5))


def test_a_module_whose_weights_changed_is_another():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))

    def function(params, inputs):
        return params * model(inputs)

    before = identity(function)
    assert before == identity(function)
    model.kernel[...] = 2 * model.kernel[...]
    assert before != identity(function)


def test_globals_that_methods_read_are_seen(monkeypatch):
    class Layer:
        def __call__(self, x):
            return SCALE * x

    before = identity(Layer())
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    assert before != identity(Layer())


def test_what_may_change_unseen_is_unknown():
    own = types.ModuleType("somebodys_settings")
    with pytest.raises(UnknownError, match="somebodys_settings"):
        identity(scaled(own))
    with pytest.raises(UnknownError, match="too large"):
        identity(scaled(np.zeros(100_000)))
    with pytest.raises(UnknownError, match="generator"):
        identity(scaled(i for i in range(3)))


def test_a_traced_value_is_unknown():
    def inside(factor):
        with pytest.raises(UnknownError, match="traced"):
            identity(scaled(factor))
        return factor

    jax.jit(inside)(1.0)
    jax.grad(inside)(1.0)


class Holder(linen.Module):
    """A module that has no hash, since it holds a list of what is no string or number."""

    layers: list

    def __call__(self, x):
        return self.layers[0](x)


def test_modules_without_a_hash_are_unknown_and_run_all_the_same():
    module = Holder([linen.Dense(2)])
    params, inputs = module.init(jax.random.key(0), jnp.ones((3, 4))), jnp.ones((3, 4))
    with pytest.raises(TypeError, match="hash"):
        hash(module)
    with pytest.raises(UnknownError):
        identity(lambda p, x: module.apply(p, x))
    kernel = tangent_kernel(lambda p, x: module.apply(p, x), params, inputs)
    assert kernel.shape == (3, 2, 3, 2)
