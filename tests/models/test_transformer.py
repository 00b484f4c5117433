# SPDX-License-Identifier: Apache-2.0
"""Language models: published sizes, closed forms, and who may see what."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.models import CausalTransformer, Encoder, LSTMLanguageModel, SwitchTransformer
from plprune.models.attention import Block, FeedForward

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
