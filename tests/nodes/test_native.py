# SPDX-License-Identifier: Apache-2.0
"""Smaller Flax modules compute what the resized function does, or say why they cannot."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import random_keep, shaped
from flax import linen, nnx
from flax_zoo import Convolutions as Branching
from flax_zoo import Decoder, LinenEncoder
from stacks import linen_stack
from zoo import fill, normal

from plprune import models
from plprune.functional import functional, paired
from plprune.nodes import find_nodes, resize, shrink, shrink_linen, shrink_model, widths


class Convolutions(nnx.Module):
    """Depthwise and grouped convolutions, both normalisations, transposed convolution."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.depth = nnx.Conv(6, 12, (3, 3), feature_group_count=6, rngs=rngs)
        self.group_norm = nnx.GroupNorm(8, num_groups=4, rngs=rngs)
        self.point = nnx.Conv(12, 8, (1, 1), rngs=rngs)
        self.up = nnx.ConvTranspose(8, 5, (2, 2), strides=(2, 2), rngs=rngs)
        self.head = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.stem(x)))
        x = nnx.relu(self.group_norm(self.point(self.depth(x))))
        return self.head(nnx.relu(self.up(x)).mean((1, 2)))


class Attention(nnx.Module):
    """A pre-norm block: attention and GELU feed-forward."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(7, 6, rngs=rngs)
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 6, 8, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(6, 9, rngs=rngs), nnx.Linear(9, 6, rngs=rngs)
        self.head = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        x = x + self.attention(self.norm(x))
        return self.head(x + self.down(nnx.gelu(self.up(x))))


class Recurrent(nnx.Module):
    def __init__(self, rngs, cell):
        self.rnn, self.head = nnx.RNN(cell(3, 6, rngs=rngs)), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x)[:, -1])


def setup(build, inputs, **options):
    """A model with random leaves, its groups and a random keep."""
    parts = functional(shaped(build))
    model = parts.rebuild(*(fill(tree, dtype="float32") for tree in (parts.params, parts.state)))
    groups = find_nodes(paired(parts), (parts.params, parts.state), inputs, **options)
    return model, groups, random_keep(groups, closed=0.5)


def single(*shape):
    return normal(*shape).astype(jnp.float32)


TOKENS = jnp.arange(12).reshape(3, 4) % 7
MODELS = {
    "convolutions": (Convolutions, single(1, 4, 4, 3), 4),
    "attention": (Attention, TOKENS, 4),
    "lstm": (lambda rngs: Recurrent(rngs, nnx.OptimizedLSTMCell), single(2, 3, 3), 1),
    "gru": (lambda rngs: Recurrent(rngs, nnx.GRUCell), single(2, 3, 3), 1),
    "branching": (Branching, single(1, 4, 4, 3), 5),
    "decoder": (Decoder, TOKENS, 7),
}


@pytest.mark.parametrize("name", MODELS)
def test_smaller_modules_pass_the_check_and_leave_the_model_alone(name):
    build, inputs, num_groups = MODELS[name]
    model, groups, keep = setup(build, inputs)
    before = jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert len(keep) == num_groups
    small = shrink_model(model, groups, keep)
    assert type(small) is type(model)
    sizes = [sum(x.size for x in jax.tree.leaves(nnx.state(m))) for m in (model, small)]
    assert sizes[1] < sizes[0]
    assert jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(model, nnx.Param))) == before


def program(apply, variables, inputs):
    """Instructions of a compiled gradient, without the numbers that tell them apart."""

    def loss(variables):
        return (apply(variables, inputs) ** 2).mean()

    text = jax.jit(jax.grad(loss)).lower(variables).compile().as_text()
    lines = re.sub(r", metadata=\{[^}]*\}|[._]\d+", "", text[text.index("\n%") :]).splitlines()
    return Counter(line for line in lines if " = " in line)


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (lambda rngs: models.MLP(4, (6, 5), 2, rngs=rngs), single(3, 4)),
        (lambda rngs: models.CNN((4, 4, 3), (4,), (6,), 2, rngs=rngs), single(2, 4, 4, 3)),
    ],
)
def test_resized_functions_compile_to_the_program_of_the_native_module(build, inputs):
    model, groups, keep = setup(build, inputs)
    native = functional(shrink_model(model, groups, keep))
    full = functional(model)
    resized = resize(paired(full), groups, keep)
    ours = program(resized, shrink((full.params, full.state), groups, keep), inputs)
    assert sum(ours.values()) > 20
    assert ours == program(paired(native), (native.params, native.state), inputs)


def test_widths_that_enter_the_arithmetic_are_found_out():
    model, groups, keep = setup(Attention, TOKENS, mode="baked")
    stream = next(n for n, g in groups.items() if g.kind == "residual stream")
    with pytest.raises(ValueError, match="a width enters its arithmetic; use resize"):
        shrink_model(model, groups, {stream: keep[stream]})


def test_sizes_written_into_the_code_are_found_out():
    class Reshaping(nnx.Module):
        def __init__(self, rngs):
            self.a, self.b = nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)

        def __call__(self, x):
            return self.b(jnp.tanh(self.a(x)).reshape(-1, 6))

    model, groups, keep = setup(Reshaping, normal(4, 4))
    with pytest.raises(ValueError, match=r"does not run .*; use resize"):
        shrink_model(model, groups, keep)


def test_groups_of_another_model_are_refused():
    _, groups, keep = setup(Attention, TOKENS)
    other = shaped(lambda rngs: Recurrent(rngs, nnx.GRUCell))
    groups = type(groups)(
        **{**vars(groups), "inputs": jax.ShapeDtypeStruct((2, 3, 3), jnp.float32)}
    )
    with pytest.raises(ValueError, match="is no group of this model"):
        shrink_model(other, groups, keep)


class LinenNet(linen.Module):
    channels: int = 6
    hidden: int = 8

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(self.channels, (3, 3), name="conv")(x)
        x = linen.relu(linen.BatchNorm(use_running_average=True, name="norm")(x))
        x = linen.Dense(self.hidden, name="hidden")(x.reshape(len(x), -1))
        return linen.Dense(3, name="output")(linen.gelu(x))


def test_linen_modules_are_rebuilt_from_widths():
    images = normal(2, 3, 3, 3)
    variables = fill(jax.eval_shape(LinenNet().init, jax.random.key(0), images))
    groups = find_nodes(LinenNet().apply, variables, images)
    keep = {"conv": np.arange(6) > 1, "hidden": np.arange(8) % 2 == 0}
    assert groups.prunable == {"conv": 6, "hidden": 8}
    assert widths(groups, keep) == {"conv": 4, "norm": 4, "hidden": 4}

    def rebuild(sizes):
        return LinenNet(channels=sizes["conv"], hidden=sizes["hidden"])

    module, small = shrink_linen(rebuild, variables, LinenNet().apply, groups, keep)
    assert module.channels == 4
    assert small["params"]["hidden"]["kernel"].shape == (36, 4)
    with pytest.raises(ValueError, match="does not run"):
        shrink_linen(lambda _: LinenNet(), variables, LinenNet().apply, groups, keep)


def test_widths_of_stacked_layers_do_not_count_the_layers():
    stack = linen_stack()
    groups = find_nodes(*stack)
    keep = {"blocks.attention": np.array([True, False]), "blocks.up": np.arange(5) > 1}
    assert widths(groups, keep) == {
        "blocks.attention.query": (1, 4), "blocks.attention.key": (1, 4),
        "blocks.attention.value": (1, 4), "blocks.up": 3,
    }  # fmt: skip


def test_linen_attention_is_rebuilt_with_fewer_heads_but_not_with_narrower_ones():
    variables = fill(
        jax.eval_shape(LinenEncoder().init, jax.random.key(0), TOKENS), dtype="float32"
    )
    groups = find_nodes(LinenEncoder().apply, variables, TOKENS)
    assert groups["attention"].kind == "head"
    assert groups["attention.query"].kind == groups["attention.value"].kind == "head width"
    keep = {"attention": np.array([True, False]), "up": np.arange(5) > 1}
    assert widths(groups, keep)["attention.query"] == (1, 4)

    def rebuild(sizes):
        heads, width = sizes["attention.query"]
        return LinenEncoder(heads=heads, inner=heads * width, hidden=sizes.get("up", 5))

    _, small = shrink_linen(rebuild, variables, LinenEncoder().apply, groups, keep)
    assert small["params"]["attention"]["out"]["kernel"].shape == (1, 4, 6)
    channels = {n: np.arange(4) > 1 for n in ("attention.query", "attention.value")}
    with pytest.raises(ValueError, match="a width enters its arithmetic"):
        shrink_linen(rebuild, variables, LinenEncoder().apply, groups, channels)
