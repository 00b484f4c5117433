# SPDX-License-Identifier: Apache-2.0
"""Positions that belong to several nodes, and groups that do not depend on the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import random_keep
from zoo import CASES, normal, shapes

from plprune.nodes import expand, find_nodes, mask, resize, shrink

pytestmark = pytest.mark.usefixtures("models_broadcast")


def assert_exact(apply, params, inputs, groups):
    """Masked, shrunk and expanded agree, each group closed alone and all together."""
    everything = random_keep(groups)
    for keep in (everything, *({name: kept} for name, kept in everything.items())):
        masked, small = mask(params, groups, keep), shrink(params, groups, keep)
        expected = apply(masked, inputs)
        np.testing.assert_allclose(resize(apply, groups, keep)(small, inputs), expected, rtol=1e-9)
        assert jax.tree.all(jax.tree.map(jnp.array_equal, expand(small, groups, keep), masked))


def outer(one, other):
    """[b, m] and [b, n] -> [b, m n]."""
    return jnp.einsum("bi,bj->bij", one, other).reshape(len(one), -1)


SELF = {
    "outer product with itself": lambda p, x: outer(h := jnp.tanh(x @ p["a"]), h) @ p["o"],
    "with a function of itself": lambda p, x: outer(h := jnp.tanh(x @ p["a"]), h**3) @ p["o"],
    "covariance over positions": lambda p, x: (
        jnp.einsum("bsi,bsj->bij", h := x[:, :, None] * p["a"][0], h).reshape(len(x), -1) @ p["o"]
    ),
    "cube": lambda p, x: outer(outer(h := jnp.tanh(x @ p["a"][:, :2]), h), h) @ p["o"][:8],
    "bilinear layer": lambda p, x: (
        jnp.einsum("bi,ij,bj->bij", h := jnp.tanh(x @ p["a"]), p["w"], h).reshape(len(x), -1)
        @ p["o"]
    ),
    "Kronecker product of a layer with itself": lambda p, x: (
        jnp.tanh(x[:, :1] * jnp.kron(p["w"][0], p["w"][0])) @ p["o"]
    ),
    "a square plus its shuffle": lambda p, x: (
        (lambda h: h + h.reshape(-1, 4, 4).swapaxes(1, 2).reshape(-1, 16))(x @ p["s"]) @ p["o"]
    ),
}
LEAVES = shapes(a=(5, 4), w=(4, 4), s=(5, 16), o=(16, 2))


@pytest.mark.parametrize("name", SELF)
def test_a_node_that_is_row_and_column_is_refused_with_the_position(name):
    apply, inputs = SELF[name], normal(3, 5)
    groups = find_nodes(apply, LEAVES, inputs)
    reasons = [g.reason for g in groups.values() if not g.prunable]
    assert any("belongs to two nodes of the group" in reason for reason in reasons)
    assert_exact(apply, LEAVES, inputs, groups)


APART = {
    "outer product of two layers": (
        lambda p, x: outer(jnp.tanh(x @ p["a"]), jnp.tanh(x @ p["b"])) @ p["o"],
        {"a": 4, "b": 4},
    ),
    "outer product kept as a square": (
        lambda p, x: jnp.einsum("bi,bj,ijk->bk", h := jnp.tanh(x @ p["a"]), h, p["q"]),
        {"a": 4},
    ),
    "square shuffle": (
        lambda p, x: jnp.tanh(x @ p["s"]).reshape(-1, 4, 4).swapaxes(1, 2).reshape(-1, 16) @ p["o"],
        {"s": 4, "s.neurons": 4},
    ),
    "square shuffle of weights": (
        lambda p, x: jnp.tanh(x @ p["s"].reshape(5, 4, 4).swapaxes(1, 2).reshape(5, 16)) @ p["o"],
        {"s": 4, "s.neurons": 4},
    ),
    "square in Fortran order": (
        lambda p, x: jax.vmap(lambda v: v.reshape(4, 4).ravel(order="F"))(x @ p["s"]) @ p["o"],
        {"s": 4, "s.neurons": 4},
    ),
    "cube with its axes turned": (
        lambda p, x: (
            (x @ p["s"][:, :8]).reshape(-1, 2, 2, 2).transpose(0, 3, 1, 2).reshape(-1, 8) @ p["c"]
        ),
        {"s": 2, "s.neurons": 2, "s.neurons_2": 2},
    ),
}


@pytest.mark.parametrize("name", APART)
def test_rows_and_columns_of_a_square_are_groups_of_their_own(name):
    apply, sizes = APART[name]
    leaves = LEAVES | shapes(b=(5, 4), q=(4, 4, 2), c=(8, 2))
    inputs = normal(3, 5)
    if name.startswith("cube"):  # Of eight columns; the others would have a place in no axis.
        leaves["s"] = leaves["s"][:, :8]
    groups = find_nodes(apply, leaves, inputs)
    assert groups.prunable == sizes
    assert_exact(apply, leaves, inputs, groups)


def at_batch(inputs, size):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), inputs)


def summary(groups):
    """All that tests may tell groups apart by, the reasons without their lines."""
    return {
        name: (
            g.size, g.kind, g.prunable, g.gateable, g.reason.split(" at ")[0],
            [(m.path, m.axis, m.index.tolist()) for m in g.members],
        )
        for name, g in groups.items()
    }  # fmt: skip


def mapped_convolution(p, x):
    """A kernel for each example: the batch becomes groups of features."""

    def one(v):
        kernel = p["k"] * (1 + v.mean())
        image = v.reshape(1, 5, 1)
        h = jax.lax.conv_general_dilated(image, kernel, (1,), "SAME", dimension_numbers=NWC)
        return jnp.tanh(h)[0].mean(0) @ p["o"]

    return jax.vmap(one)(x)


NWC = ("NWC", "WIO", "NWC")
BATCHED = {
    "mapped convolution": (mapped_convolution, shapes(k=(2, 1, 4), o=(4, 2)), normal(3, 5)),
    "mapped MLP": (
        lambda p, x: jax.vmap(lambda v: jnp.tanh(v @ p["a"]) @ p["o"])(x),
        shapes(a=(5, 4), o=(4, 2)),
        normal(3, 5),
    ),
    "positions merged with the batch": (
        lambda p, x: (
            jnp.tanh(x.reshape(-1, 1) @ p["a"]).reshape(len(x), -1) @ p["o"]
        ),
        shapes(a=(1, 4), o=(20, 2)),
        normal(3, 5),
    ),
    "batch last": (
        lambda p, x: (p["o"].T @ jnp.tanh(p["a"].T @ x.T)).T,
        shapes(a=(5, 4), o=(4, 2)),
        normal(3, 5),
    ),
    "examples attend to themselves": (
        lambda p, x: jnp.einsum("bi,bj->bij", jnp.tanh(x @ p["a"]), x).sum(2) @ p["o"],
        shapes(a=(5, 4), o=(4, 2)),
        normal(3, 5),
    ),
}  # fmt: skip
ZOO = ("cnn, flattened", "group norm", "shuffled groups", "transformer", "switch", "dropout")


@pytest.mark.parametrize("name", [*BATCHED, *ZOO])
def test_groups_do_not_depend_on_the_batch_size(name):
    if name in BATCHED:
        apply, params, inputs = BATCHED[name]
    else:
        apply, params, inputs = CASES[name][:3]
    sizes = (1, 2, 3, 4, 5, 7)  # Widths among them.
    found = [summary(find_nodes(apply, params, at_batch(inputs, n))) for n in sizes]
    assert all(list(f.items()) == list(found[0].items()) for f in found[1:])
    assert any(prunable for _, _, prunable, *_ in found[0].values())


@pytest.mark.parametrize(
    ("apply", "params", "sizes"),
    [
        (
            lambda p, x: jnp.tanh(x @ p["a"]) @ p["o"],
            shapes(a=(5, 4), o=(4, 2), u=(0, 3)),
            {"a": 4},
        ),
        (
            lambda p, x: jnp.tanh(x @ (p["a"] + p["u"] @ p["v"])) @ p["o"],
            shapes(a=(5, 4), o=(4, 2), u=(5, 0), v=(0, 4)),
            {"v": 4},
        ),
        (lambda p, x: jnp.tanh(x[:, :0] @ p["a"] + p["b"]) @ p["o"],
         shapes(a=(0, 4), b=(4,), o=(4, 2)), {"a": 4}),
    ],
    ids=["unused", "adapter of rank zero", "no inputs"],
)  # fmt: skip
def test_leaves_without_entries(apply, params, sizes):
    inputs = normal(3, 5)
    groups = find_nodes(apply, params, inputs)
    assert groups.prunable == sizes
    assert_exact(apply, params, inputs, groups)


def test_groups_are_found_while_an_outer_function_is_traced():
    params, inputs = shapes(a=(5, 4), o=(4, 2)), normal(3, 5)

    @jax.jit
    def traced(scale, order):
        def apply(p, x):
            return (jnp.tanh(x @ p["a"]) * scale)[:, order] @ p["o"]

        assert not find_nodes(apply, params, inputs).prunable  # The order is not known yet.
        return scale

    traced(jnp.ones(4), jnp.arange(4))


def test_an_empty_batch_has_the_same_groups():
    _, params, inputs = BATCHED["positions merged with the batch"]

    def flattened(p, x):
        return jnp.tanh(x[:, :, None] * p["a"]).reshape(len(x), 20) @ p["o"]

    empty, full = (find_nodes(flattened, params, x) for x in (inputs[:0], inputs))
    assert summary(empty) == summary(full)
    assert full.prunable == {"a": 4}
