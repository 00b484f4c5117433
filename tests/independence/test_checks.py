# SPDX-License-Identifier: Apache-2.0
"""Whatever mixes rows is refused by every entry point, or gives the kernel of the whole batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import plprune
from plprune import scores
from plprune.compilation import forget_compiled
from plprune.constants import hessian_norm, hessian_norms, jacobian_norm, minibatch_pl_constants
from plprune.independence import NotProvenError, check_independent
from plprune.kernels import (
    leaf_kernels,
    node_kernels,
    projected_kernel,
    sharded_kernel,
    tangent_kernel,
    traced_kernel,
)
from plprune.losses import squared_error
from tests.graph.doubts import mixing

pytestmark = pytest.mark.usefixtures("models_broadcast")
B, H, C = 6, 6, 2
KEY = jax.random.key(7)
DRAW = np.random.default_rng(0)
X = jnp.asarray(DRAW.normal(size=(B, 3)))
P = {
    "a": jnp.asarray(DRAW.normal(size=(3, H))),
    "o": jnp.asarray(DRAW.normal(size=(H, C))),
    "zero": jnp.zeros(()),
    "rows": jnp.asarray(DRAW.normal(size=(B, H))),
}


def model(*changes):
    """A net whose hidden units [b, h] go through `changes` (each of the units and parameters)."""

    def apply(p, x):
        h = jnp.tanh(x @ p["a"])
        for change in changes:
            h = change(h, p)
        return h @ p["o"]

    return apply


def whole_kernel(apply):
    """J J' of the batch, nothing taken apart."""
    jacobian = jax.jacfwd(lambda p: apply(p, X).reshape(-1))(P)
    flat = np.concatenate([np.reshape(j, (B * C, -1)) for j in jax.tree.leaves(jacobian)], 1)
    return (flat @ flat.T).reshape(B, C, B, C)


# Index maps of the rows, reductions over them, constants of their number, and of the batch's shape.
permuted = st.permutations(range(B)).map(lambda order: lambda h, _: h[jnp.array(order) % len(h)])
repeated = st.lists(st.integers(0, B - 1), min_size=B, max_size=B).map(
    lambda order: lambda h, _: h[jnp.array(order[: len(h)]) % len(h)]
)
multiplied = st.permutations(range(B)).map(
    lambda order: lambda h, _: jnp.eye(B)[jnp.array(order)][: len(h), : len(h)] @ h
)
rolled = st.integers(0, B - 1).map(lambda k: lambda h, _: jnp.roll(h, k, 0))
cut = st.integers(1, B - 1).map(lambda k: lambda h, _: jnp.concatenate([h[k:], h[:k]]))
shifted = st.integers(-2, 2).map(
    lambda k: lambda h, _: lax.pad(h, jnp.zeros((), h.dtype), ((k, -k, 0), (0, 0, 0)))
)
named = st.sampled_from([
    lambda h, _: h[::-1],
    lambda h, _: h - h.mean(0),
    lambda h, _: h / (1 + jnp.max(jnp.abs(h))),
    lambda h, _: jnp.cumsum(h, 0),
    lambda h, _: jnp.sort(h, 0),
    lambda h, _: h.T.reshape(h.shape),
    lambda h, _: h * (1 + jnp.arange(len(h)))[:, None],
    lambda h, p: h + p["rows"][: len(h)],
    lambda h, _: h / len(h),
    lambda h, _: h * jnp.ones(len(h)).sum(),
    lambda h, _: h + jax.random.normal(KEY, h.shape),
    lambda h, p: h + p["zero"] * jax.random.normal(KEY, h.shape),
    lambda h, _: jnp.where(jax.random.bernoulli(KEY, 0.5, h.shape), h, 0),
    lambda h, _: h * np.linspace(0, 1, len(h))[:, None],
    lambda h, _: h + lax.scan(lambda c, v: (c + v, c), jnp.zeros(H), h)[1],
    lambda h, _: h.at[0].multiply(2.0),
    lambda h, _: jax.ops.segment_sum(h, jnp.arange(len(h)) // 2, len(h)),
    lambda h, _: jnp.fft.fft(h, axis=0).real,
])  # fmt: skip
mixings = st.one_of(permuted, repeated, multiplied, rolled, cut, shifted, named)
# What treats each row by itself, and every row alike.
separate = st.sampled_from([
    lambda h, _: h[:, ::-1],
    lambda h, _: jnp.roll(h, 2, 1),
    lambda h, _: jnp.cumsum(h, 1),
    lambda h, _: jax.nn.softmax(h),
    lambda h, _: jax.nn.relu(h) + h.mean(1, keepdims=True),
    lambda h, _: h.reshape(-1, 3).repeat(2, 1).reshape(len(h), 2, H).sum(1),
    lambda h, _: h.T.reshape(2, 3, -1).transpose(2, 1, 0).reshape(len(h), -1),
    lambda h, _: h + jnp.zeros(h.shape) + np.ones((len(h), 1)),
    lambda h, _: h * jax.random.normal(KEY, (H,)),
    lambda h, _: jax.vmap(lambda v: v / (1 + jnp.linalg.norm(v)))(h),
    lambda h, p: lax.map(lambda v: jnp.tanh(v) * p["a"][0], h),
    lambda h, _: lax.scan(lambda c, v: (c + v[:, None], c), jnp.zeros(h.shape), h.T)[0],
    lambda h, _: jnp.take_along_axis(h, jnp.argsort(h, 1), 1),
    lambda h, _: jnp.concatenate([h[:, 3:], jnp.zeros((len(h), 1)), h[:, :2]], 1),
])  # fmt: skip


def looped(change):
    return lambda h, p: lax.scan(lambda c, _: (change(c, p), None), h, None, length=2)[0]


def counted(change):
    return lambda h, p: lax.while_loop(
        lambda s: s[0] < 2, lambda s: (s[0] + 1, change(s[1], p)), (0, h)
    )[1]


def branched(change):
    return lambda h, p: lax.cond(p["a"][0, 0] < 9, lambda: change(h, p), lambda: h)


def mapped(change):
    return lambda h, p: jax.vmap(lambda part: change(part, p), 0)(jnp.stack([h, 2 * h])).sum(0)


wrapped = st.sampled_from([lambda change: change, looped, counted, branched, mapped])


@given(first=separate, mixing=mixings, wrap=wrapped, last=separate)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_mixings_are_refused_or_equal_the_whole_batch(first, mixing, wrap, last):
    apply = model(first, wrap(mixing), last)
    refused = ""
    try:
        kernel = tangent_kernel(apply, P, X, method="contraction")
    except ValueError as error:
        refused = str(error)
    if refused:
        assert "examples independently" in refused
    else:
        whole = whole_kernel(apply)
        np.testing.assert_allclose(kernel, whole, rtol=0, atol=1e-9 * np.abs(whole).max())


@given(changes=st.lists(st.tuples(wrapped, separate), min_size=1, max_size=3))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_separate_rows_are_proven(changes):
    assert mixing(model(*(wrap(change) for wrap, change in changes)), P, X) is None


FLIPPED = model(lambda h, _: h + h[::-1])
TURNED_TWICE = model(lambda h, _: h[::-1][::-1])  # The graph does not show that this is nothing.
GROUPS = plprune.find_nodes(model(), P, X)
LABELS = jnp.zeros((B, C))


def gating(apply, independent, params, **options):
    transformation = plprune.pl_gating(
        optax.sgd(0.1), apply, GROUPS, keep_fraction=0.5, key=KEY, initial_updates=1,
        independent=independent, **options,
    )  # fmt: skip
    return transformation.update(P, transformation.init(params), params, probe=X)


def scored_gating(apply, independent, params):
    transformation = plprune.score_gating(
        optax.sgd(0.1), apply, GROUPS, score=scores.taylor, keep_fraction=0.5, key=KEY,
        loss=squared_error, independent=independent,
    )  # fmt: skip
    return transformation.update(P, transformation.init(params), params, probe=(X, LABELS))


def on_mesh(apply, word, params):
    kind = jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(kind,))
    return sharded_kernel(apply, params, X, mesh=mesh, axis="rows", independent=word)


def scored(score, apply, independent, params):
    return score(apply, params, GROUPS, scores.Probe(X, LABELS, squared_error, KEY, independent))


ENTRIES = {
    "tangent_kernel": lambda f, w, p: tangent_kernel(f, p, X, independent=w),
    "tangent_kernel, other": lambda f, w, p: tangent_kernel(f, p, X[:1], X, independent=w),
    "traced_kernel": lambda f, w, p: traced_kernel(f, p, X, independent=w),
    "projected_kernel": lambda f, w, p: projected_kernel(f, p, X, jnp.ones(C), independent=w),
    "leaf_kernels": lambda f, w, p: leaf_kernels(f, p, X, independent=w),
    "node_kernels": lambda f, w, p: node_kernels(f, p, X, GROUPS, independent=w),
    "sharded_kernel": on_mesh,
    "tangent_kernel_product": lambda f, w, p: plprune.tangent_kernel_product(
        f, p, X, independent=w
    )(LABELS),
    **{
        f"pl_constant, {method}": lambda f, w, p, method=method: plprune.pl_constant(
            f, p, X, method=method, key=KEY, independent=w
        )
        for method in ("auto", "dense", "svd", "matrix_free")
    },
    "minibatch_pl_constants": lambda f, w, p: minibatch_pl_constants(
        f, p, X, num_batches=2, independent=w
    ),
    "condition_number": lambda f, w, p: plprune.condition_number(f, p, X, independent=w),
    "jacobian_norm": lambda f, w, p: jacobian_norm(f, p, X, independent=w),
    "hessian_norm": lambda f, w, p: hessian_norm(f, p, X, key=KEY, independent=w),
    "hessian_norms": lambda f, w, p: hessian_norms(f, p, X, key=KEY, independent=w),
    "taylor": partial(scored, scores.taylor),
    "node_lambda_max": partial(scored, scores.node_lambda_max),
    "pl_gating": gating,
    "pl_gating, mlp": lambda f, w, p: gating(f, w, p, network="mlp"),
    "score_gating": scored_gating,
}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_refuses_by_name(name):
    with pytest.raises(ValueError, match=r"examples independently.*rev reverses the batch axis"):
        ENTRIES[name](FLIPPED, False, P)


@pytest.mark.parametrize("name", ENTRIES)
def test_without_values_every_entry_asks_for_the_callers_word(name):
    """Under jit neither a mixing is seen at work nor its absence."""
    for apply in (FLIPPED, TURNED_TWICE):
        with pytest.raises(NotProvenError, match="independent=True takes your word"):
            jax.eval_shape(lambda p: ENTRIES[name](apply, False, p), P)  # noqa: B023
    jax.eval_shape(lambda p: ENTRIES[name](TURNED_TWICE, True, p), P)


def test_proven_models_pass_under_jit():
    jax.eval_shape(lambda p: ENTRIES["pl_gating"](model(), False, p), P)
    jax.eval_shape(lambda p: jax.vmap(lambda s: tangent_kernel(model(), s, X))(p), stacked(P))
    jax.eval_shape(jax.grad(lambda p: tangent_kernel(model(), p, X).sum()), P)


def stacked(tree):
    return jax.tree.map(lambda a: jnp.stack([a, a]), tree)


def test_values_decide_where_graphs_do_not():
    kernel = tangent_kernel(TURNED_TWICE, P, X)
    np.testing.assert_allclose(kernel, tangent_kernel(model(), P, X), rtol=1e-12)
    state = gating(TURNED_TWICE, False, P)[1]
    assert int(state.keep["a"].sum()) == H // 2


def test_values_at_hand_serve_while_something_else_is_traced():
    jax.eval_shape(lambda s: s * tangent_kernel(TURNED_TWICE, P, X), 1.0)
    with pytest.raises(ValueError, match="rows come out otherwise"):
        jax.eval_shape(lambda s: s * tangent_kernel(FLIPPED, P, X), 1.0)


def test_a_closure_without_values_is_told_from_one_with():
    def kernel(scale):
        return tangent_kernel(model(lambda h, _: scale * h[::-1][::-1]), P, X)

    kernel(jnp.ones(()))
    with pytest.raises(NotProvenError):
        jax.eval_shape(kernel, 1.0)


def rows_of(change):
    check_independent(model(change), P, X)


def test_a_derivative_that_outputs_do_not_show_is_seen():
    with pytest.raises(ValueError, match="rows come out otherwise"):
        rows_of(lambda h, p: h + p["zero"] * jnp.arange(len(h))[:, None])


@jax.custom_vjp
def _doubled(x):
    return 2 * x


_doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g[::-1][::-1],))


@jax.custom_vjp
def _turned(x):
    return 2 * x


_turned.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g[::-1],))


def test_functions_without_a_forward_rule_are_run_backward():
    rows_of(lambda h, _: _doubled(h))
    with pytest.raises(ValueError, match="rows come out otherwise"):
        rows_of(lambda h, _: _turned(h))


def test_values_that_are_no_numbers_must_agree_too():
    rows_of(lambda h, _: jnp.log(h[::-1][::-1]))  # NaN where the unit is negative.
    with pytest.raises(ValueError, match="rows come out otherwise"):
        rows_of(lambda h, _: h * jnp.where(jnp.arange(len(h))[:, None] == 1, jnp.nan, 1))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_rounding_passes_in_every_type_and_small_mixings_do_not(dtype):
    params = jax.tree.map(lambda a: a.astype(dtype), P)
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(33, 3)), dtype)
    check_independent(model(lambda h, _: h[::-1][::-1]), params, inputs)
    part = {jnp.bfloat16: 0.3, jnp.float16: 0.1, jnp.float32: 1e-3}[dtype]
    with pytest.raises(ValueError, match="rows come out otherwise"):
        check_independent(model(lambda h, _: h + part * h[::-1]), params, inputs)


def test_a_row_beside_huge_ones_counts_by_its_own_size():
    inputs = X.at[0].mul(1e-4)
    linear = lambda p, x: (x + 1e-4 * jnp.roll(x, -1, 0).at[1:].set(0)) @ p["a"]  # noqa: E731
    with pytest.raises(ValueError, match="rows come out otherwise"):
        check_independent(linear, P, inputs * jnp.array([1, 1e3, 1e3, 1e3, 1, 1])[:, None])


def test_one_example_that_fails_is_told():
    def pairs(p, x):
        parts = x.reshape(2, -1, 3)
        return (parts - parts.mean(1, keepdims=True)).reshape(-1, 3) @ p["a"]

    with pytest.raises(ValueError, match="examples independently"):
        tangent_kernel(pairs, P, X)

    def of_one_size(p, x):
        return jnp.tanh(x @ p["a"]).reshape(B, H)

    with pytest.raises(ValueError, match="one example alone fails: TypeError"):
        tangent_kernel(of_one_size, P, X)


def test_a_single_example_needs_no_company():
    tangent_kernel(FLIPPED, P, X[:1])
    assert plprune.find_nodes(FLIPPED, P, X[:1]).dependence == ""


def test_node_groups_say_what_is_not_proven():
    groups = plprune.find_nodes(FLIPPED, P, X)
    assert dict(groups.prunable) == {"a": H}
    assert "rev reverses the batch axis at" in groups.dependence
    assert repr(groups).splitlines()[-1].startswith("examples are not proven independent: rev")
    assert GROUPS.dependence == ""
    assert "proven" not in repr(GROUPS)
    graph = plprune.find_nodes(lambda p, x: x[0] @ p["a"] * x[1], P, (X, jnp.ones(())))
    assert "batch axis" in graph.dependence


def test_the_proof_compiles_nothing(monkeypatch):
    forget_compiled()  # Else the run could be a program of before.
    monkeypatch.setattr(jax, "jit", None)
    check_independent(model(), P, X)
    with pytest.raises(ValueError, match="run that would tell"):
        check_independent(TURNED_TWICE, P, X)


def test_other_batches_are_checked_at_their_own_size():
    def crowded(p, x):
        return jnp.tanh(x @ p["a"]) @ p["o"] / (2 if len(x) > 3 else 1)

    tangent_kernel(crowded, P, X[:3])
    with pytest.raises(ValueError, match="rows come out otherwise"):
        tangent_kernel(crowded, P, X[:3], X)
