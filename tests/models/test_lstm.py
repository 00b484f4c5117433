# SPDX-License-Identifier: Apache-2.0
"""LSTM language models: sizes, equations, and two ways to run them."""

import chex
import jax
import numpy as np
import pytest

from plprune.models import LSTMLanguageModel

pytestmark = pytest.mark.usefixtures("models_broadcast")
TOKENS = np.array([[1, 2, 3, 4, 5], [6, 5, 4, 3, 2]])


def test_lstm_has_four_gates_of_inputs_states_and_one_bias(count_of):
    gates = [4 * h * (i + h + 1) for i, h in ((400, 1150), (1150, 1150), (1150, 400))]
    awd = count_of(lambda rngs: LSTMLanguageModel(10_000, tied=True, rngs=rngs))
    assert awd == 10_000 * 401 + sum(gates)
    assert round(awd / 1e6) == 24


def test_lstm_equals_its_equations(fill):
    net, params, _ = fill(lambda rngs: LSTMLanguageModel(7, 4, (6, 5), rngs=rngs))
    x = np.asarray(params["embedding"]["embedding"], np.float64)[TOKENS]
    for layer in ("layer_0", "layer_1"):
        cell = jax.tree.map(lambda p: np.asarray(p, np.float64), params[layer]["cell"])
        c = h = np.zeros((2, len(cell["dense_h"]["kernel"])))
        outputs = []
        for t in range(5):
            gates = x[:, t] @ cell["dense_i"]["kernel"] + h @ cell["dense_h"]["kernel"]
            i, f, g, o = np.split(gates + cell["dense_h"]["bias"], 4, axis=1)
            c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            h = np.tanh(c) / (1 + np.exp(-o))
            outputs.append(h)
        x = np.stack(outputs, axis=1)
    expected = x @ params["output"]["kernel"] + params["output"]["bias"]
    outputs = jax.jit(net.apply)(params, {}, TOKENS)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_unrolled_and_scanned_lstm_agree(fill):
    sizes = (7, 4, (6, 4))
    scanned, unrolled = (
        fill(lambda rngs, unroll=unroll: LSTMLanguageModel(*sizes, unroll=unroll, rngs=rngs))
        for unroll in (False, True)
    )
    outputs = [jax.jit(f.net.apply)(scanned.params, {}, TOKENS) for f in (scanned, unrolled)]
    chex.assert_trees_all_close(*outputs, rtol=1e-5, atol=1e-6)
