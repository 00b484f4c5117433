# SPDX-License-Identifier: Apache-2.0
"""What may be a mask, a score or a fraction, and what is refused in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import found
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import CASES

from plprune.gating.options import gated_sizes
from plprune.nodes import expand, keep_top, mask, resize, shrink, widths
from plprune.nodes.checks import keep_masks
from plprune.storage import save_shrunk

MLP, GROUPS = CASES["mlp"], found("mlp")
SMALL = shrink(MLP.params, GROUPS, {"0": np.arange(8) < 5})
TAKERS = {
    "mask": lambda keep: mask(MLP.params, GROUPS, keep),
    "shrink": lambda keep: shrink(MLP.params, GROUPS, keep),
    "expand": lambda keep: expand(SMALL, GROUPS, keep),
    "resize": lambda keep: resize(MLP.apply, GROUPS, keep),
    "widths": lambda keep: widths(GROUPS, keep),
}
DTYPES = [
    bool, np.int8, np.uint8, np.int32, np.uint64, np.float16, np.float32, np.float64,
    jnp.bfloat16, jnp.float8_e4m3fn,
]  # fmt: skip
FORMS = [lambda a: a, jnp.asarray, lambda a: a.tolist(), lambda a: tuple(a)]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.booleans(), min_size=8, max_size=8).filter(any),
    st.sampled_from(DTYPES),
    st.sampled_from(FORMS),
)
def test_booleans_and_exact_zeros_and_ones_are_masks(bits, dtype, form):
    kept = np.array(bits)
    given_ = {"0": form(kept.astype(dtype))}
    expected = shrink(MLP.params, GROUPS, {"0": kept})
    small = shrink(MLP.params, GROUPS, given_)
    jax.tree.map(np.testing.assert_array_equal, small, expected)
    np.testing.assert_array_equal(
        mask(MLP.params, GROUPS, given_)[0][0], jnp.where(kept[None], MLP.params[0][0], 0)
    )
    assert widths(GROUPS, given_) == {"0": sum(bits)}


NUMBERS = {
    "permutation": np.array([3, 1, 0, 5, 4, 2, 7, 6]),
    "indices padded with -1": np.array([0, 4, -1, -1, -1, -1, -1, -1]),
    "indices padded with 0": np.array([0, 4, 7, 0, 0, 0, 0, 0]),
    "scores": np.linspace(0, 1, 8),
    "nearly one": np.full(8, 1 - 1e-7),
    "minus one": [-1, 1, 1, 1, 1, 1, 1, 1],
    "counts": np.full(8, 255, np.uint8),
    "not a number": np.full(8, np.nan),
    "infinite": jnp.full(8, jnp.inf),
    "half a gate": jnp.full(8, 0.5, jnp.bfloat16),
}
OTHERS = {
    "letters": "11110000",
    "characters": list("11110000"),
    "bytes": b"11110000",
    "words": np.array(["False"] * 8),
    "nothing": None,
    "nothing, eight times": [None] * 8,
    "a set": {0, 1},
    "a mapping": {k: True for k in range(8)},
    "objects": np.array([True] * 8, object),
    "complex": np.ones(8) + 0j,
    "dates": np.zeros(8, "datetime64[s]"),
    "a generator": (True for _ in range(8)),
    "keys": jax.random.split(jax.random.key(0), 8),
}
SHAPES = {
    "indices": ([0, 4], r"\(8,\), got \(2,\)"),
    "a row": (np.ones((1, 8), bool), r"\(8,\), got \(1, 8\)"),
    "one number": (True, r"\(8,\), got \(\)"),
    "none": ([], r"\(8,\), got \(0,\)"),
}


def check_refused(kept, message):
    for name, take in TAKERS.items():
        with pytest.raises(ValueError, match=message) as error:
            take({"0": kept})
        assert "\n" not in str(error.value), name


@pytest.mark.parametrize("case", NUMBERS)
def test_other_numbers_are_refused(case):
    check_refused(NUMBERS[case], r"keep\['0'\] must hold booleans, or exact 0 and 1.*; got")


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_no_number_is_refused(case):
    check_refused(OTHERS[case], r"keep\['0'\] must (hold real numbers|be one row of numbers)")


@pytest.mark.parametrize("case", SHAPES)
def test_other_shapes_are_refused(case):
    kept, message = SHAPES[case]
    check_refused(kept, rf"keep\['0'\] must have shape {message}")
    check_refused([[True], [True, False]], r"keep\['0'\] must be one row of numbers")


def test_traced_masks_are_booleans_and_never_cut():
    closed = jax.jit(lambda kept: mask(MLP.params, GROUPS, {"0": kept}))(np.arange(8) > 3)
    np.testing.assert_array_equal((closed[0][0] == 0).all(0), np.arange(8) <= 3)
    with pytest.raises(ValueError, match=r"keep\['0'\] must be of booleans where it is traced"):
        jax.jit(lambda kept: mask(MLP.params, GROUPS, {"0": kept}))(jnp.ones(8))
    for name in ("shrink", "expand", "resize", "widths"):
        with pytest.raises(ValueError, match=r"keep\['0'\] must be concrete"):
            jax.jit(lambda kept, name=name: TAKERS[name]({"0": kept}))(jnp.ones(8, bool))
    listed = jax.jit(lambda one: mask(MLP.params, GROUPS, {"0": [one] * 8}))(True)
    np.testing.assert_array_equal(listed[0][0], MLP.params[0][0])


def test_masks_come_by_group():
    for keep in (np.ones(8, bool), [True] * 8, None, "0"):
        with pytest.raises(ValueError, match=r"keep must map names of groups to one entry per no"):
            keep_masks(keep, GROUPS)


def test_saved_masks_are_masks(tmp_path):
    for kept in (np.linspace(0, 1, 8), np.array(["True"] * 8), None, {0, 1}):
        with pytest.raises(ValueError, match=r"keep\['0'\] must (hold|have shape|be one row)"):
            save_shrunk(tmp_path / "new", SMALL, {"0": kept})


def test_scores_may_be_any_real_numbers_and_keep_their_order():
    order = np.array([5, 2, 7, 1, 0, 3, 6, 4])
    best = order >= 4
    huge = 2**60 + order  # Equal as floats of 32 or of 64 bits.
    close = 1 + order * np.finfo(float).eps
    for scores in (order, order.tolist(), tuple(order), huge, close, -1.0 / (1 + order), best):
        keep = keep_top({"0": scores}, GROUPS, 0.5)
        np.testing.assert_array_equal(keep["0"], best)
    with jax.enable_x64(False):
        np.testing.assert_array_equal(keep_top({"0": close}, GROUPS, 0.5)["0"], best)
        both = {"0": close, "1": np.array([0.0, 2, 0, 2, 0, np.nan])}
        keep = keep_top(both, GROUPS, 6 / 14, budget="global")
        np.testing.assert_array_equal(keep["0"], best)
        np.testing.assert_array_equal(keep["1"], np.array([0, 1, 0, 1, 0, 0], bool))
    for scores in (np.ones(8) * 1j, ["0.1"] * 8, np.array([None] * 8), "12345678"):
        with pytest.raises(ValueError, match=r"scores\['0'\] must hold real numbers"):
            keep_top({"0": scores}, GROUPS, 0.5)


def test_fractions_are_checked_whatever_holds_them():
    scores = {"0": jnp.arange(8.0)}
    for fraction in (0.5, np.float32(0.5), np.array(0.5), jnp.asarray(0.5)):
        assert int(keep_top(scores, GROUPS, fraction)["0"].sum()) == 4
    for fraction in (0, -0.5, np.nan, np.float64(1.5), jnp.asarray(2.0), 50):
        with pytest.raises(ValueError, match=r"keep_fraction must lie in \(0, 1\], got"):
            keep_top(scores, GROUPS, fraction)
    traced = jax.jit(lambda fraction: keep_top(scores, GROUPS, fraction)["0"])(0.25)
    assert int(traced.sum()) == 2


def test_one_pattern_may_be_a_string():
    assert keep_top({"0": jnp.arange(8.0)}, GROUPS, 0.5, exclude="0") == {}
    assert gated_sizes(GROUPS, "0") == {"1": 6}
    with pytest.raises(ValueError, match="exclude names '01'"):
        gated_sizes(GROUPS, "01")
