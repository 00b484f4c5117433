# SPDX-License-Identifier: Apache-2.0
"""What a model's own weights, tokens or shapes hide from a comparison, random ones show."""

from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.functional import functional, paired
from plprune.graph.tracing import trace
from plprune.nodes import find_nodes, shrink, shrink_model
from plprune.nodes.agreement import Disagreement, Sides, check_agreement, coarsest
from plprune.nodes.sampling import Sampler


class Rotary(nnx.Module):
    """Attention whose rotations depend on how many pairs of channels a head has."""

    def __init__(self, rngs, deviation):
        def weight(*shape):
            return nnx.Param(deviation * rngs.params.normal(shape))

        self.embed, self.out = weight(13, 6), weight(6, 3)
        self.q, self.k, self.v = (weight(6, 2, 4) for _ in range(3))

    def turned(self, x):
        width = x.shape[-1]
        angles = jnp.arange(x.shape[1])[:, None, None] / 10 ** (jnp.arange(width // 2) * 4 / width)
        a, b = jnp.split(x, 2, -1)
        sin, cos = jnp.sin(angles), jnp.cos(angles)
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def __call__(self, tokens):
        h = self.embed[...][tokens]
        q, k, v = (jnp.einsum("btd,dnh->btnh", h, w[...]) for w in (self.q, self.k, self.v))
        logits = jnp.einsum("btnh,bsnh->bnts", self.turned(q), self.turned(k)) / 2
        read = jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(logits), v)
        return (h + read.reshape(*h.shape[:2], -1)[..., :6]).mean(1) @ self.out[...]


def groups_of(model, inputs, **options):
    parts = functional(model, **options)
    return find_nodes(paired(parts), (parts.params, parts.state), inputs)


def half(groups, *names):
    """Every second node of some groups."""
    return {name: np.arange(groups[name].size) % 2 == 0 for name in names}


def leaves(model):
    return jax.tree.leaves(nnx.to_pure_dict(nnx.state(model)))


@pytest.mark.parametrize("deviation", [0, 0.02, 1])
@pytest.mark.parametrize("length", [1, 5])
def test_one_rotary_pair_too_few_is_found_out_at_every_size_of_the_weights(deviation, length):
    tokens = jnp.zeros((2, length), int)
    model = Rotary(nnx.Rngs(0), deviation)
    groups = groups_of(model, tokens)
    assert groups.prunable["q"] == 2
    with pytest.raises(ValueError, match="a width enters its arithmetic; use resize"):
        shrink_model(model, groups, {"q": np.array([False, True])})


class Hiding(nnx.Module):
    """Two layers; between them `use(self, h, inputs)` has a width that the weights hide."""

    def __init__(self, use, rngs):
        self.use, self.table = use, nnx.Embed(20, 3, rngs=rngs)
        self.a, self.b = nnx.Linear(3, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)
        self.zero, self.tiny, self.low = (nnx.Param(jnp.float32(x)) for x in (0, 1e-9, -99))
        self.state = nnx.Variable(jnp.float32(0))
        self.step, self.flag = nnx.Variable(jnp.int32(0)), nnx.Variable(jnp.array(False))

    def __call__(self, inputs):
        h = jnp.tanh(self.a(self.table(inputs)))
        return self.b(self.use(self, h, inputs))


def width(h):
    return h.shape[-1]


def later(h, start):
    """Positions from `start` on are doubled."""
    return h * jnp.where(jnp.arange(h.shape[1]) < start, 1, 2)[:, None]


def carried(value):
    """The value behind a loop that float64 breaks: its carry would change its type."""
    return jax.lax.scan(lambda c, _: (c * value, None), jnp.ones((), jnp.float32), length=2)[0]


def counted(step):
    """How many steps lead to 10: at a step near zero the loop would hardly end."""
    return jax.lax.while_loop(
        lambda c: c[0] < 10, lambda c: (c[0] + step, c[1] + 1), (0 * step, 0)
    )[1]


HIDDEN = {
    "behind a zero parameter": lambda m, h, _: h + m.zero[...] * h / width(h),
    "behind a tiny parameter": lambda m, h, _: h + m.tiny[...] * jnp.sin(width(h) * h),
    "behind zero state": lambda m, h, _: h * (1 + m.state[...] * width(h)),
    "behind a unit that is off": lambda m, h, _: h + width(h) * nnx.relu(h + m.low[...]),
    "behind an exponential": lambda m, h, _: h + width(h) * h * jnp.exp(10 * m.low[...]),
    "behind saturation": lambda m, h, _: h * jax.nn.sigmoid(1e3 * width(h) * m.low[...]),
    "in a threshold": lambda m, h, _: h + jnp.clip(m.zero[...] * h, -width(h), width(h)),
    "in an adjusted attribute": lambda m, h, _: h + m.zero[...] * h / m.a.out_features,
    "in the shape of a leaf": lambda m, h, _: h + m.zero[...] * h * m.b.kernel.shape[0],
    "in a rounding": lambda m, h, _: h + jnp.round(m.zero[...] * h * width(h)),
    "behind tokens above one": lambda _, h, x: h * jnp.where(x > 15, width(h), 1)[..., None],
    "behind the first position": lambda _, h, __: later(h, 1 if width(h) == 6 else 2),
    "where a mask ends": lambda _, h, __: later(h, width(h)),
    "behind a single example": lambda _, h, x: h * (width(h) if len(x) == 2 else 1),
    "where only float32 runs": lambda m, h, _: h + carried(m.zero[...]) * h / width(h),
    "in a loop": lambda m, h, _: h + counted(m.low[...] ** 2) * m.zero[...] * h / width(h),
    "behind a late step": lambda m, h, _: h * jnp.where(m.step[...] > 9, width(h), 1),
    "behind a flag": lambda m, h, _: h * jnp.where(m.flag[...], width(h), 1),
    "behind padding": lambda _, h, x: jnp.where((x != 0).any(1)[:, None, None], h, h * width(h)),
    "beneath single precision": lambda _, h, __: h * (1 + 1e-9 * width(h)),
    "in single precision": lambda m, h, _: h + (m.zero[...] * h / width(h)).astype(jnp.float32),
    "in half precision": lambda m, h, _: h + (m.zero[...] * h / width(h)).astype(jnp.bfloat16),
    "behind 1e-6": lambda _, h, __: h / jnp.sqrt(h**2 + 1e-6 * width(h)),
}


@pytest.mark.parametrize("place", HIDDEN)
def test_a_width_is_found_wherever_it_hides(place):
    model, tokens = Hiding(HIDDEN[place], nnx.Rngs(0)), jnp.zeros((1, 1), int)
    groups = groups_of(model, tokens)
    with pytest.raises(ValueError, match="a width enters its arithmetic; use resize"):
        shrink_model(model, groups, half(groups, "a"))


FITTING = {
    "no width": lambda m, h, _: h + m.zero[...] * h,
    "the full width": lambda _, h, __: h / 6,
    "roots of parameters": lambda m, h, _: h * jnp.sqrt(m.tiny[...]) + jnp.log(1 - m.zero[...]),
    "roots of differences": lambda m, h, _: h * jnp.sqrt(m.zero[...] - m.low[...] - 50),
    "infinite outputs": lambda m, h, _: jnp.where(h > m.zero[...], h, -jnp.inf),
    "overflow": lambda m, h, _: jnp.exp(jnp.exp(9 * h)) * m.zero[...],
    "chaos": lambda _, h, __: jax.lax.fori_loop(0, 99, lambda _, y: 1 - 1.9 * y**2, h),
    "half precision": lambda _, h, __: h.astype(jnp.bfloat16) * 1.1,
    "only float32": lambda m, h, _: h + carried(m.zero[...]) * h,
    "a loop": lambda m, h, _: h + counted(m.low[...] ** 2) * h,
    "argmax": lambda m, h, x: h * (x == jnp.argmax(m.table.embedding[...][:, 0]))[..., None],
}


@pytest.mark.parametrize("name", FITTING)
def test_right_modules_are_accepted(name):
    model, tokens = Hiding(FITTING[name], nnx.Rngs(0)), jnp.arange(6).reshape(2, 3)
    groups = groups_of(model, tokens)
    before = leaves(model)
    keep = half(groups, "a")
    small = shrink_model(model, groups, keep)
    assert small.a.kernel.shape == (3, 3)
    assert all(map(np.array_equal, leaves(model), before))
    parts = functional(model)
    (cut, _), own = shrink((parts.params, parts.state), groups, keep), functional(small).params
    assert jax.tree.map(np.array_equal, own, cut) == jax.tree.map(lambda _: True, cut)


def iterated(sine):
    """A map that is chaotic at large parameters and calm at small ones."""
    return lambda p, x: jax.lax.fori_loop(0, 60, lambda _, y: sine(p["a"], y), x @ p["w"])


@pytest.mark.parametrize(
    ("sine", "agrees"),
    [
        (lambda a, y: jnp.sin(3 * a * y / 3), True),
        (lambda a, y: jnp.sin(a * y + 1e-9), False),
        (lambda a, y: jnp.sin(a * y) / (y > 0), False),
    ],
)
def test_what_rounding_alone_changes_is_no_disagreement(sine, agrees):
    reference = iterated(lambda a, y: jnp.sin(a * y))
    params, inputs = {"w": jnp.ones((3, 4)), "a": jnp.ones(4)}, jnp.ones((2, 3))
    groups = find_nodes(reference, params, inputs)
    sampler = partial(Sampler, trace(reference, params, inputs), groups, params)
    sides = Sides(reference, iterated(sine))
    with nullcontext() if agrees else pytest.raises(Disagreement, match="is off by"):
        check_agreement(sides, sides, sampler, jax.eval_shape(lambda: inputs))


def test_a_function_without_finite_outputs_cannot_be_compared():
    def nowhere(p, x):
        return x @ p["w"] / 0

    params, inputs = {"w": jnp.ones((3, 4))}, jnp.ones((2, 3))
    groups = find_nodes(nowhere, params, inputs)
    sampler = partial(Sampler, trace(nowhere, params, inputs), groups, params)
    with pytest.raises(Disagreement, match="no random weights give finite outputs"):
        check_agreement(*[Sides(nowhere, nowhere)] * 2, sampler, jax.eval_shape(lambda: inputs))


def test_the_coarsest_type_of_a_program_bounds_what_is_seen():
    def program(function):
        return jax.jit(function).lower(jnp.ones((2, 2), jnp.float64)).as_text()

    assert coarsest(program(lambda x: x @ x)) == jnp.finfo(jnp.float64).eps
    assert coarsest(program(lambda x: x.astype(jnp.float32).sum())) == jnp.finfo(jnp.float32).eps
    assert coarsest(program(lambda x: x.sum().astype(jnp.bfloat16))) == jnp.finfo(jnp.bfloat16).eps
    assert coarsest(program(lambda x: x > 0)) == jnp.finfo(jnp.float64).eps
