# SPDX-License-Identifier: Apache-2.0
"""Networks of tokens: transformers, mixtures of experts, proteins."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.public.adaptors import (
    KEY,
    Model,
    Shelf,
    numbers,
    of_equinox,
    of_keras,
    of_linen,
    of_nnx,
    tokens,
)
from benchmarks.public.vision import _keras

LANGUAGE = Shelf("language")
_NANO = {
    "dropout": 0.0, "vocab_size": 16, "embed_dim": 8, "max_length": 8, "start_token": 0,
    "end_token": 1, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "feedforward_dim": 8,
}  # fmt: skip


def _nano(name, inputs, **more):
    import nanodl

    whole = of_linen(getattr(nanodl, name)(**_NANO, **more), inputs)

    def apply(variables, inputs):
        out = whole.apply(variables, inputs)
        return out[0] if isinstance(out, tuple) else out

    return whole._replace(apply=apply)


@LANGUAGE("nanodl", "T5")
def _t5():
    return _nano("T5", (tokens(2, 6), tokens(2, 6)))


@LANGUAGE("nanodl", "Whisper")
def _whisper():
    return _nano("Whisper", (numbers(2, 8, 8), tokens(2, 6)))


@LANGUAGE("nanodl", "GPT-4")
def _gpt():
    return _nano("GPT4", tokens(2, 6))


@LANGUAGE("nanodl", "LaMDA")
def _lamda():
    return _nano("LaMDA", tokens(2, 6))


@LANGUAGE("nanodl", "Mixtral")
def _mixtral():
    return _nano("Mixtral", tokens(2, 8), num_groups=2, window_size=4, shift_size=2)


@LANGUAGE("nanodl", "Gemma")
def _nano_gemma():
    return _nano("Gemma", tokens(2, 6), num_groups=2)


@LANGUAGE("nano-moe-jax", "mixture of experts")
def _nano_moe():
    from nano_moe.config import NanoMoEConfig
    from nano_moe.model import NanoMoE

    config = NanoMoEConfig(
        vocab_size=16, n_layers=2, n_heads=2, d_model=8, d_ff=12, n_experts=4, block_size=8
    )
    whole = of_linen(NanoMoE(config), tokens(2, 6))

    def apply(variables, inputs):
        return jax.tree.leaves(whole.apply(variables, inputs))[0]

    return whole._replace(apply=apply)


@LANGUAGE("gemma", "Gemma 3")
def _gemma():
    from gemma import gm
    from gemma.gm.nn import _config, _modules

    config = _config.TransformerConfig(
        num_embed=32, embed_dim=8, hidden_dim=12, num_heads=4, head_dim=4, num_kv_heads=2,
        final_logit_softcap=30.0, use_post_attn_norm=True, use_post_ffw_norm=True,
        attention_types=(_modules.AttentionType.LOCAL_SLIDING, _modules.AttentionType.GLOBAL),
        query_pre_attn_norm=_config.QueryPreAttentionNormalisation.BY_ONE_OVER_SQRT_HEAD_DIM,
        use_qk_norm=True, sliding_window_size=4,
    )  # fmt: skip
    net = gm.nn.Transformer(config=config, dtype=jnp.float32)
    whole = of_linen(net, tokens(2, 6) + 3)
    return whole._replace(apply=lambda v, x: whole.apply(v, x).logits)


_TUNIX = {
    "num_layers": 2, "vocab_size": 16, "embed_dim": 8, "hidden_dim": 12, "num_heads": 4,
    "head_dim": 4, "num_kv_heads": 2, "rope_theta": 10_000, "norm_eps": 1e-6,
}  # fmt: skip


def llama() -> Any:
    """Two layers of tunix's Llama 3, an NNX module."""
    from flax import nnx
    from tunix.models.llama3 import model

    return model.Llama3(model.ModelConfig(**_TUNIX), rngs=nnx.Rngs(0))


def qwen_experts() -> Any:
    """Two layers of tunix's Qwen 3, an NNX module, two of four experts at a time."""
    from flax import nnx
    from tunix.models.qwen3 import model

    config = model.ModelConfig(**_TUNIX, num_experts=4, num_experts_per_tok=2)
    return model.Qwen3(config, rngs=nnx.Rngs(0))


def tunix_call(net: Any, x: jax.Array) -> jax.Array:
    """Logits of a language model of tunix, without a cache."""
    places = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape)
    seen = jnp.broadcast_to(jnp.tri(x.shape[1], dtype=bool), (*x.shape, x.shape[1]))
    return net(x, places, None, seen)[0]


@LANGUAGE("google-tunix", "Llama 3")
def _llama():
    return of_nnx(llama(), tokens(2, 6), tunix_call)


@LANGUAGE("google-tunix", "Qwen 3 with experts")
def _qwen():
    return of_nnx(qwen_experts(), tokens(2, 6), tunix_call)


@LANGUAGE("attnax", "transformer encoder")
def _attnax():
    from attnax import TransformerConfig, TransformerEncoder
    from flax import nnx

    config = TransformerConfig(
        vocab_size=16, d_model=8, d_ff=12, num_layers=2, num_heads=2, max_len=8
    )
    return of_nnx(TransformerEncoder(nnx.Rngs(0), config), tokens(2, 6))


@LANGUAGE("e1jax", "E1, proteins")
def _e1():
    from e1jax import E1

    def call(net, x):
        places, ids = jnp.arange(len(x)), jnp.zeros(len(x), jnp.int32)
        return net(x, places, places, ids, jnp.ones(len(x), bool))[0]

    return of_equinox(E1(8, 2, 12, 3, key=KEY), tokens(2, 6), call)


@LANGUAGE("keras", "transformer block")
def _keras_transformer():
    keras = _keras()
    layers = keras.layers
    x = given = keras.Input((6,), dtype="int32")
    x = layers.Embedding(16, 8)(x)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(8)(layers.Dense(12, "gelu")(x)))
    net = keras.Model(given, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))
    return of_keras(net, tokens(2, 6))


@LANGUAGE("keras", "LSTM and GRU, both directions")
def _keras_recurrent():
    layers = _keras().layers
    net = _keras().Sequential([
        layers.Embedding(16, 5), layers.Bidirectional(layers.LSTM(6, return_sequences=True)),
        layers.GRU(5), layers.Dense(3),
    ])  # fmt: skip
    return of_keras(net, tokens(2, 6))


@LANGUAGE("penzai", "Llama-like transformer")
def _penzai():
    from penzai import pz
    from penzai.models.transformer.variants import llamalike_common as common

    config = common.LlamalikeTransformerConfig(
        num_kv_heads=2, query_head_multiplier=2, embedding_dim=8, projection_dim=4,
        mlp_hidden_dim=12, num_decoder_blocks=2, vocab_size=16, mlp_variant="swiglu",
        tie_embedder_and_logits=False, parameter_dtype=jnp.float32,
    )  # fmt: skip
    net = common.build_llamalike_transformer(config, init_base_rng=jax.random.key(0))
    frozen, variables = pz.unbind_params(net, freeze=True)
    frozen_variables = variables

    def apply(values, x):
        whole = pz.bind_variables(
            frozen, [dataclasses.replace(v, value=values[str(v.label)]) for v in frozen_variables]
        )
        return whole(pz.nx.wrap(x, "batch", "seq")).unwrap("batch", "seq", "vocabulary")

    return Model(apply, {str(v.label): v.value for v in variables}, tokens(2, 6))
