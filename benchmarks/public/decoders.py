# SPDX-License-Identifier: Apache-2.0
"""Decoders of tunix, of any size, as they are and with their layers stacked for a scan.

Of tunix only the models are imported: its package brings trainers and their dependencies in.
``pip install --no-deps google-tunix==0.1.7 huggingface_hub safetensors`` is enough for these.
"""

import dataclasses
import importlib.util
import sys
import types
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

TINY = {
    "num_layers": 2, "vocab_size": 16, "embed_dim": 8, "hidden_dim": 12, "num_heads": 4,
    "num_kv_heads": 2, "head_dim": 4,
}  # fmt: skip


class Decoder(NamedTuple):
    """A decoder whose modules can be made, and how it runs on tokens."""

    make: Callable[[], nnx.Module]
    call: Callable[[nnx.Module, jax.Array], jax.Array]


def llama(*, tiny: bool = False, stacked: bool = False) -> Decoder:
    """Llama 3.1, 8B."""
    models = _models("llama3")
    config = models.ModelConfig.llama3p1_8b()
    return _decoder(models.Llama3, _sized(config, tiny), models, stacked)


def qwen(*, tiny: bool = False, stacked: bool = False) -> Decoder:
    """Qwen 3, a mixture of experts: 30B, of which 3B are active."""
    models = _models("qwen3")
    config = models.ModelConfig.qwen3_30b_a3b()
    config = _sized(config, tiny, num_experts=4, num_experts_per_tok=2)
    return _decoder(models.Qwen3, config, models, stacked)


def _models(name):
    """A module with models of tunix, without what its package imports."""
    if "tunix" not in sys.modules:
        spec = importlib.util.find_spec("tunix")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("tunix is not installed", name="tunix")
        sys.modules["tunix"] = types.ModuleType("tunix")
        sys.modules["tunix"].__path__ = list(spec.submodule_search_locations)
    return import_module(f"tunix.models.{name}.model")


def _sized(config: Any, tiny: bool, **more: int) -> Any:
    return dataclasses.replace(config, **TINY, **more) if tiny else config


def _decoder(kind, config, models, stacked) -> Decoder:
    if stacked:
        return Decoder(lambda: Stacked(kind, config, models), lambda model, x: model(x))
    return Decoder(lambda: kind(config, rngs=nnx.Rngs(0)), _call)


def _call(model, tokens):
    return model(tokens, *_positions(tokens))[0]


def _positions(tokens):
    """Positions, no cache, and the mask of what came before."""
    batch, length = tokens.shape
    places = jnp.broadcast_to(jnp.arange(length), (batch, length))
    mask = jnp.tril(jnp.ones((length, length), bool))
    return places, None, jnp.broadcast_to(mask, (batch, length, length))


class Stacked(nnx.Module):
    """A decoder whose layers are slices of one array for each leaf, run by a scan."""

    def __init__(self, kind: Any, config: Any, models: Any):
        whole = kind(dataclasses.replace(config, num_layers=1), rngs=nnx.Rngs(0))
        self.embedder, self.final_norm = whole.embedder, whole.final_norm
        self.lm_head = whole.lm_head

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap
        def layers(rngs):
            return models.DecoderLayer(config=config, rngs=rngs)

        self.layers = layers(nnx.Rngs(1))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits of the next tokens."""
        places, cache, mask = _positions(tokens)

        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def through(layer, x):
            return layer(x, places, cache, mask)[1]

        x = through(self.layers, self.embedder.encode(tokens))
        return self.lm_head(self.final_norm(x))
