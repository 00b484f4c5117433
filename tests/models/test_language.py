# SPDX-License-Identifier: Apache-2.0
"""Language models: published sizes, closed forms, and who may see what."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.models import CausalTransformer, Encoder, LSTMLanguageModel, SwitchTransformer
from plprune.models.attention import Block, FeedForward, dot_product_attention
from plprune.models.switch import Switch

pytestmark = pytest.mark.usefixtures("models_broadcast")
TOKENS = np.array([[1, 2, 3, 4, 5], [6, 5, 4, 3, 2]])
SIZES = (7, 5, 8, 2, 2, 12)

SMALL = {
    "encoder": lambda rngs: Encoder(*SIZES, dropout=0.2, rngs=rngs),
    "causal": lambda rngs: CausalTransformer(*SIZES, rngs=rngs),
    "causal-tied": lambda rngs: CausalTransformer(*SIZES, tied=True, rngs=rngs),
    "switch": lambda rngs: SwitchTransformer(*SIZES, 3, rngs=rngs),
    "switch-encoder": lambda rngs: SwitchTransformer(*SIZES, 3, causal=False, rngs=rngs),
    "lstm": lambda rngs: LSTMLanguageModel(7, 4, (6, 5), dropout=0.2, rngs=rngs),
    "lstm-tied": lambda rngs: LSTMLanguageModel(7, 4, (6, 4), tied=True, unroll=True, rngs=rngs),
}
BIDIRECTIONAL = ("encoder", "switch-encoder")


@pytest.mark.parametrize("name", SMALL)
def test_examples_are_independent_and_causal_models_do_not_look_ahead(name, fill):
    net, params, state = fill(SMALL[name])
    apply = jax.jit(net.apply)
    whole = apply(params, state, TOKENS)
    assert whole.shape == (2, 5, 7)
    assert jnp.isfinite(whole).all()
    assert state == {}
    others = apply(params, state, TOKENS * [[1], [0]])
    chex.assert_trees_all_close(whole[0], others[0], rtol=1e-5)
    later = apply(params, state, TOKENS * [1, 1, 1, 1, 0])
    if name in BIDIRECTIONAL:
        assert jnp.abs(whole - later).max(-1).min() > 0
    else:
        chex.assert_trees_all_close(whole[:, :4], later[:, :4], rtol=1e-5)
        assert not jnp.allclose(whole[:, 4], later[:, 4])


def test_sizes_are_the_published_ones(count_of):
    vocabulary = 30_522
    bert = count_of(lambda rngs: Encoder(vocabulary, 512, rngs=rngs))
    assert bert - (768 * vocabulary + vocabulary) == 108_890_112
    gpt2 = count_of(lambda rngs: CausalTransformer(50_257, 1024, tied=True, rngs=rngs))
    assert gpt2 == 124_439_808


def test_lstm_has_four_gates_of_inputs_states_and_one_bias(count_of):
    gates = [4 * h * (i + h + 1) for i, h in ((400, 1150), (1150, 1150), (1150, 400))]
    awd = count_of(lambda rngs: LSTMLanguageModel(10_000, tied=True, rngs=rngs))
    assert awd == 10_000 * 401 + sum(gates)
    assert round(awd / 1e6) == 24


def test_experts_multiply_the_feed_forward_parameters_alone(count_of):
    dense = count_of(lambda rngs: CausalTransformer(*SIZES, rngs=rngs))
    switch = count_of(lambda rngs: SwitchTransformer(*SIZES, 3, rngs=rngs))
    feed_forward = 8 * 12 + 12 + 12 * 8 + 8
    assert switch - dense == 2 * (2 * feed_forward + 8 * 3 + 3)


def test_lstm_equals_its_equations(fill):
    net, params, _ = fill(SMALL["lstm"])
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


def test_attention_equals_the_library_s(key):
    query, keys, values = jax.random.normal(key, (3, 2, 5, 2, 4), jnp.float32)
    mask = nnx.make_causal_mask(TOKENS, dtype=bool)
    expected = jax.nn.dot_product_attention(query, keys, values, mask=mask)
    outputs = jax.jit(dot_product_attention)(query, keys, values, mask)
    chex.assert_trees_all_close(outputs, expected, rtol=1e-4, atol=1e-5)


def test_each_position_uses_its_own_expert(key, fill):
    net, params, _ = fill(lambda rngs: Switch(4, 6, 3, rngs=rngs))
    x = jax.random.normal(key, (2, 5, 4), jnp.float32)
    outputs = jax.jit(net.apply)(params, {}, x)
    logits = np.asarray(x @ params["router"]["kernel"] + params["router"]["bias"], np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for b, t in np.ndindex(2, 5):
        e = probabilities[b, t].argmax()
        hidden = np.maximum(x[b, t] @ params["hidden_kernel"][e] + params["hidden_bias"][e], 0)
        expected = hidden @ params["output_kernel"][e] + params["output_bias"][e]
        expected = expected * probabilities[b, t, e]
        np.testing.assert_allclose(outputs[b, t], expected, rtol=1e-4, atol=1e-5)


def test_imbalance_is_one_if_even_and_the_number_of_experts_if_one_takes_all(fill):
    options = {"call": lambda module, x: module.imbalance(x)}
    net, params, _ = fill(lambda rngs: Switch(3, 2, 3, rngs=rngs), **options)
    kernel, bias = 50 * jnp.eye(3, dtype=jnp.float32), jnp.zeros(3, jnp.float32)
    routed = {**params, "router": {"kernel": kernel, "bias": bias}}
    even = jnp.eye(3, dtype=jnp.float32)[None]
    one = jnp.zeros((1, 3, 3), jnp.float32).at[..., 1].set(1)
    np.testing.assert_allclose(net.apply(routed, {}, even), [1.0], rtol=1e-5)
    np.testing.assert_allclose(net.apply(routed, {}, one), [3.0], rtol=1e-5)


def test_switch_gives_logits_and_imbalance_of_each_example(fill):
    balanced = {"call": lambda module, tokens: module.balanced(tokens)}
    net, params, _ = fill(SMALL["switch"], **balanced)
    apply = jax.jit(net.apply)
    outputs, imbalance = apply(params, {}, TOKENS)
    assert (outputs.shape, imbalance.shape) == ((2, 5, 7), (2,))
    assert ((imbalance > 0) & (imbalance <= 3 + 1e-5)).all()
    others = apply(params, {}, TOKENS * [[1], [0]])
    np.testing.assert_allclose(others.imbalance[0], imbalance[0], rtol=1e-5)
    assert others.imbalance[1] != imbalance[1]


def test_dropout_acts_in_training_only(key, fill):
    net, params, state = fill(SMALL["lstm"])
    train = jax.jit(net.train)
    first, _ = train(params, state, TOKENS, key=key)
    other, _ = train(params, state, TOKENS, key=jax.random.key(1))
    assert not jnp.allclose(first, other)


def test_parts_have_readable_names(shapes_of):
    names = shapes_of(SMALL["encoder"])
    assert names["encoder"]["block_1"]["mlp"]["hidden"] == {"kernel": (8, 12), "bias": (12,)}
    assert names["encoder"]["block_0"]["attention"]["query"]["kernel"] == (8, 2, 4)
    assert shapes_of(SMALL["switch"])["block_1"]["mlp"]["router"] == {
        "kernel": (8, 3),
        "bias": (3,),
    }


def test_rejects_bad_arguments():
    rngs = nnx.Rngs(0)
    mlp = FeedForward(4, 2, rngs=rngs)
    with pytest.raises(ValueError, match="heads must divide features = 4, got 3"):
        Block(4, 3, mlp, norm="pre", dropout=0.0, rngs=rngs)
    with pytest.raises(ValueError, match="norm must be one of pre, post; got 'mid'"):
        Block(4, 2, mlp, norm="mid", dropout=0.0, rngs=rngs)
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\), got 1.0"):
        Block(4, 2, mlp, norm="pre", dropout=1.0, rngs=rngs)
    with pytest.raises(ValueError, match="hidden must end in embedding = 4, got 5"):
        LSTMLanguageModel(7, 4, (5,), tied=True, rngs=rngs)
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        LSTMLanguageModel(7, 4, (), rngs=rngs)


def test_too_long_sequence_is_refused(fill):
    net, params, _ = fill(SMALL["causal"])
    with pytest.raises(ValueError, match="at most 5 positions, got 6"):
        net.apply(params, {}, np.zeros((1, 6), int))
