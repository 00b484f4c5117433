# SPDX-License-Identifier: Apache-2.0
"""Smaller modules of unusual make: what goes in, comes out, changes per call, or fails."""

import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stacks
from flax import nnx
from zoo import normal

from plprune.functional import functional, paired
from plprune.nodes import blame, find_nodes, native, resize, shrink, shrink_model

pytestmark = pytest.mark.filterwarnings("ignore:Using .Module.sow")
VECTORS, SEQUENCES = normal(4, 3).astype(jnp.float32), normal(2, 5, 3).astype(jnp.float32)


def halved(model, inputs, call=operator.call):
    """The smaller module without every second node of every group."""
    parts = functional(model, call=call)
    groups = find_nodes(paired(parts), (parts.params, parts.state), inputs)
    keep = {name: np.arange(size) % 2 == 0 for name, size in groups.prunable.items()}
    return shrink_model(model, groups, keep, call=call)


class Two(nnx.Module):
    """Two layers with something of the module's own in between and after them."""

    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(3, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)
        self.drop, self.norm = nnx.Dropout(0.5, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)

    def __call__(self, x):
        return self.b(self.between(jnp.tanh(self.a(x))))

    def between(self, h):
        return h


class Failing(Two):
    def __init__(self, rngs, kind):
        super().__init__(rngs)
        self.kind = kind

    def between(self, h):
        if h.shape[-1] < 6:
            raise self.kind("only wide ones")
        return h


@pytest.mark.parametrize(
    "kind",
    [TypeError, AssertionError, KeyError, IndexError, AttributeError, ZeroDivisionError,
     NotImplementedError, RuntimeError, StopIteration],
)  # fmt: skip
def test_whatever_the_smaller_module_raises_becomes_advice(kind):
    with pytest.raises(
        ValueError, match=rf"does not run \({kind.__name__}.*; use resize"
    ) as caught:
        halved(Failing(nnx.Rngs(0), kind), VECTORS)
    assert isinstance(caught.value.__cause__, kind)


class Returning(Two):
    def __init__(self, rngs, returns):
        super().__init__(rngs)
        self.returns = returns

    def __call__(self, x):
        h = jnp.tanh(self.a(x))
        y = self.b(h)
        return self.returns(y) if h.shape[-1] < 6 else y


@pytest.mark.parametrize(
    "returns",
    [lambda y: (y, y), lambda y: {"y": y}, lambda y: y.astype(jnp.float16), lambda y: y[:, :1],
     lambda y: y.astype(int)],
)  # fmt: skip
def test_outputs_of_another_kind_are_refused(returns):
    with pytest.raises(ValueError, match=r"smaller module returns .*, not .*; use resize"):
        halved(Returning(nnx.Rngs(0), returns), VECTORS)


class Deep(nnx.Module):
    """Residual blocks, whose inner width enters in every other one."""

    def __init__(self, count, rngs):
        self.ups, self.downs = (
            nnx.List([nnx.Linear(*shape, rngs=rngs) for _ in range(count)])
            for shape in ((3, 4), (4, 3))
        )
        self.first, self.last = nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        x = jnp.tanh(self.first(x))
        for k, (up, down) in enumerate(zip(self.ups, self.downs, strict=True)):
            h = jnp.tanh(up(x))
            x = x + down(h if k % 2 else h * h.shape[-1])
        return self.last(x)


@pytest.mark.parametrize(
    ("most", "named"), [(8, "['ups.0', 'ups.2']"), (1, "['ups.0'] and 1 more")]
)
def test_groups_at_fault_are_named(monkeypatch, most, named):
    monkeypatch.setattr(native, "_MAX_NAMED", most)
    expected = re.escape(f"use resize, which runs for every model, or leave {named} out of keep (")
    with pytest.raises(ValueError, match=expected):
        halved(Deep(3, nnx.Rngs(0)), VECTORS)


def test_where_groups_are_many_one_speaks_for_those_of_repeated_layers(monkeypatch):
    monkeypatch.setattr(blame, "_MAX_TRIED", 3)
    with pytest.raises(ValueError, match=re.escape("leave ['ups.0', 'ups.1', 'ups.2'] out of")):
        halved(Deep(3, nnx.Rngs(0)), VECTORS)


def test_a_single_group_is_named_too():
    with pytest.raises(ValueError, match=r"for every model, or leave \['a'\] out of keep"):
        halved(Returning(nnx.Rngs(0), lambda y: y[:, :1]), VECTORS)


class Outputs(Two):
    def __call__(self, x):
        y = super().__call__(x)
        return y, {"square": y**2, "best": y.argmax(-1), "none": None, "count": 3, "sure": y > 0}


class Sowing(Two):
    def between(self, h):
        self.sow(nnx.Intermediate, "h", h)
        return h


class SowingElse(Two):
    def between(self, h):
        self.sow(nnx.Cache, "h", h)
        return h


class Stateful(Two):
    """A count, a moving average as wide as the nodes, dropout and normalisation."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.calls, self.mean = nnx.Variable(jnp.int32(0)), nnx.Variable(jnp.zeros(6, jnp.float32))

    def between(self, h):
        self.calls[...] += 1
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * h[0]
        return self.drop(self.norm(h)) + self.mean[...]


class Carrying(nnx.Module):
    """A cell whose carry is kept between calls."""

    def __init__(self, rngs):
        self.cell, self.carry = nnx.GRUCell(3, 6, rngs=rngs), nnx.Variable(jnp.zeros((4, 6)))
        self.out = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        self.carry[...], y = self.cell(self.carry[...], x)
        return self.out(y)


class Shared(Two):
    """One layer used twice, under two names."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.m = self.n = nnx.Linear(6, 6, rngs=rngs)

    def between(self, h):
        return jnp.tanh(self.n(jnp.tanh(self.m(h))))


class Contained(nnx.Module):
    """Modules in dictionaries, lists and sequences; some have no parameters."""

    def __init__(self, rngs):
        self.named = nnx.Dict(x=nnx.Linear(3, 6, rngs=rngs), y=nnx.PReLU())
        layers = nnx.Linear(6, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 2, rngs=rngs)
        self.rest = nnx.List([nnx.Sequential(*layers), nnx.Dropout(0.5, rngs=rngs)])

    def __call__(self, x):
        return self.rest[1](self.rest[0](self.named["y"](self.named["x"](x))))


class Stacked(nnx.Module):
    """Blocks with a leading axis of layers, run by a scan."""

    def __init__(self, rngs):
        keys = jax.random.split(jax.random.key(0), 3)
        self.blocks = nnx.vmap(lambda key: Block(nnx.Rngs(key)))(keys)
        self.first, self.last = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        run = nnx.scan(lambda h, b: b(h), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.last(run(self.first(x), self.blocks)).mean(1)


class Block(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.norm = nnx.GroupNorm(12, 4, rngs=rngs)
        self.up, self.down = nnx.Linear(8, 12, rngs=rngs), nnx.Linear(12, 8, rngs=rngs)

    def __call__(self, h):
        h = h + self.attention(h)
        return h + self.down(jnp.tanh(self.norm(self.up(h))))


class Half(nnx.Module):
    def __init__(self, rngs):
        self.a = nnx.Linear(3, 6, dtype=jnp.bfloat16, rngs=rngs)
        self.b = nnx.Linear(6, 2, dtype=jnp.float16, param_dtype=jnp.float16, rngs=rngs)

    def __call__(self, x):
        return self.b(jnp.tanh(self.a(x)))


MODULES = {
    "trees as outputs": (Outputs, VECTORS, 1),
    "sown intermediates": (Sowing, VECTORS, 1),
    "sown values of another kind": (SowingElse, VECTORS, 1),
    "state that changes": (Stateful, VECTORS, 1),
    "a carry between calls": (Carrying, VECTORS, 1),
    "a shared layer": (Shared, VECTORS, 1),
    "containers": (Contained, VECTORS, 2),
    "stacked blocks": (Stacked, SEQUENCES, 5),
    "blocks along the last axis": (lambda rngs: stacks.Stacked(rngs, -1), stacks.TOKENS, 5),
    "half precision": (Half, VECTORS, 1),
}


@pytest.mark.parametrize("name", MODULES)
def test_unusual_modules_shrink_to_what_resize_computes(name):
    build, inputs, count = MODULES[name]
    model = build(nnx.Rngs(0))
    parts = functional(model)
    variables = parts.params, parts.state
    groups = find_nodes(paired(parts), variables, inputs)
    keep = {n: np.arange(size) % 2 == 0 for n, size in groups.prunable.items()}
    assert len(keep) == count
    small = shrink_model(model, groups, keep)
    ours = paired(functional(small))((functional(small).params, functional(small).state), inputs)
    theirs = resize(paired(parts), groups, keep)(shrink(variables, groups, keep), inputs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        accuracy = 1e-2 if name == "half precision" else 1e-5
        np.testing.assert_allclose(one, other, rtol=accuracy, atol=accuracy)


def test_sown_values_of_earlier_calls_go():
    model = Sowing(nnx.Rngs(0))
    model(VECTORS)
    small = halved(model, VECTORS)
    assert not jax.tree.leaves(nnx.state(small, nnx.Intermediate))
    assert len(jax.tree.leaves(nnx.state(model, nnx.Intermediate))) == 1


class Inputs(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(3, 6, rngs=rngs), nnx.Embed(9, 6, rngs=rngs)
        self.out = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x, tokens, *, seen):
        return self.out(jnp.tanh(self.a(x) + jnp.where(seen[:, None], self.b(tokens), 0)))


def test_several_inputs_of_several_types():
    def call(model, inputs):
        return model(inputs[0], inputs[1]["tokens"], seen=inputs[1]["seen"])

    inputs = VECTORS, {"tokens": jnp.zeros(4, int), "seen": jnp.zeros(4, bool)}
    assert halved(Inputs(nnx.Rngs(0)), inputs, call).a.kernel.shape == (3, 3)


def test_a_module_without_parameters_is_returned():
    class Empty(nnx.Module):
        def __call__(self, x):
            return jnp.tanh(x)

    assert isinstance(halved(Empty(), VECTORS), Empty)
