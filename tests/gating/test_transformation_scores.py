# SPDX-License-Identifier: Apache-2.0
"""Every score of the library under a schedule, in one program."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune import scores
from plprune.gating import score_gating
from plprune.losses import cross_entropy
from tests.gating.cases import (
    FIRST,
    GRADS,
    GROUPS,
    INPUTS,
    KEY,
    LABELS,
    PARAMS,
    SECOND,
    apply,
    closed_entries,
    draw,
)

REDRAWN = partial(scores.ntk_sap, init=draw)
DRAWING = ("random", "ntk_sap", "node_lambda_max")


def chosen(index):
    """The score with that number, which may be traced; after the last comes `REDRAWN`."""

    def score(*args):
        def single(function):
            values = function(*args)
            return {name: v.astype(jnp.float32) for name, v in values.items()}

        branches = [partial(single, function) for function in (*scores.SCORES.values(), REDRAWN)]
        return jax.lax.switch(index, branches)

    return score


def gating(index):
    return score_gating(
        optax.sgd(0.01), apply, GROUPS, score=chosen(index), keep_fraction=0.5, key=KEY,
        period=2, freeze_at=5, schedule="cubic", loss=cross_entropy,
    )  # fmt: skip


@jax.jit
def step(index, params, state):
    tx = gating(index)
    updates, state = tx.update(GRADS, state, params, probe=(INPUTS, LABELS))
    return optax.apply_updates(params, updates), state


@pytest.mark.parametrize("name", scores.SCORES)
def test_scores_close_nodes_along_a_schedule(name):
    index = list(scores.SCORES).index(name)
    params, state, counts, refreshed = PARAMS, gating(index).init(PARAMS), [], []
    for number in range(6):
        params, state = step(index, params, state)
        counts.append((int(state.keep[FIRST].sum()), int(state.keep[SECOND].sum())))
        assert all((entries == 0).all() for entries in closed_entries(params, state.keep))
        refreshed += [state] if number in (0, 2, 4) else []
    # Updates at 0, 2 and 4 keep 1, .5 + .5^4 and .5, halves rounded up.
    assert counts == [(8, 6)] * 2 + [(5, 3)] * 2 + [(4, 3)] * 2
    for at in refreshed:
        for group, gates in at.gates.items():
            kept = np.asarray(at.keep[group])
            assert np.isfinite(gates).all()
            assert np.std(gates) > 0
            assert np.min(gates[kept]) >= np.max(gates, where=~kept, initial=-np.inf)
    if name in DRAWING:
        assert not np.allclose(refreshed[1].gates[FIRST], refreshed[2].gates[FIRST], rtol=0.1)


def test_ntk_sap_scores_fresh_weights_where_it_can_draw_them():
    def gates(index, params):
        return np.asarray(step(index, params, gating(index).init(params))[1].gates[FIRST])

    halved = jax.tree.map(lambda p: p / 2, PARAMS)
    given, redrawn = list(scores.SCORES).index("ntk_sap"), len(scores.SCORES)
    assert not np.allclose(gates(given, PARAMS), gates(given, halved), rtol=0.1)
    np.testing.assert_array_equal(gates(redrawn, PARAMS), gates(redrawn, halved))
    assert not np.allclose(gates(redrawn, PARAMS), gates(given, PARAMS), rtol=0.1)


def test_a_score_that_is_called_otherwise_is_refused_before_any_step():
    def by_keywords(apply, params, groups, *, inputs, **_):
        raise NotImplementedError

    with pytest.raises(TypeError, match=r"must be called score\(apply, params, groups, probe\)"):
        score_gating(optax.sgd(0.1), apply, GROUPS, score=by_keywords, keep_fraction=0.5, key=KEY)


def test_nothing_as_large_as_a_weight_matrix_is_sorted():
    text = str(jax.make_jaxpr(step)(0, PARAMS, gating(0).init(PARAMS)))
    shapes = re.findall(r"\w\[([\d,]*)\] = sort\[", text)
    sizes = [np.prod([int(n) for n in shape.split(",")]) for shape in shapes]
    assert max(sizes) == 8  # The choice among the nodes of the larger group; a matrix has 12.
    assert "top_k[" not in text
