# SPDX-License-Identifier: Apache-2.0
"""Models of text: an LSTM under normalised descent, and a causal transformer under AdamW."""

import jax.numpy as jnp
import numpy as np
import optax

from experiments.alpha_beta import networks
from experiments.alpha_beta.config import Config
from experiments.alpha_beta.training import Training
from plprune.data import Text, load_text, sequences
from plprune.models import CausalTransformer, LSTMLanguageModel
from plprune.optimizers import nsgd

MOMENTUM = 0.9


def data(config: Config, figure: str):
    """((windows of a text, the same a token later), size of the vocabulary)."""
    del figure
    if config.corpus == "python_manual":
        text = _manual(config.text)
    else:
        text = load_text(config.corpus, split=f"train[:{config.text}]")
    windows = sequences(text, config.length)
    return (jnp.asarray(windows.inputs), jnp.asarray(windows.targets)), text.num_tokens


def lstm(config: Config, data):
    """A 3-layer LSTM: the angle and the PL constant (figures 1, 8, 10), and an MLP beside it."""
    arrays, vocabulary = data
    width = config.lstm_width

    def build(rngs):
        return LSTMLanguageModel(vocabulary, width, (width,) * 3, rngs=rngs)

    schedule = optax.cosine_decay_schedule(config.lstm_rate, config.lstm_steps)
    rule = nsgd(schedule, momentum=MOMENTUM)
    return {
        "lstm": lambda: Training(build, rule, arrays, config.text_batch, config.lstm_steps),
        "mlp": lambda: networks.middle_width(config),
    }


def transformer(config: Config, data):
    """A causal transformer in place of the paper's largest models (figures 7, 18, 19)."""
    arrays, vocabulary = data
    width = config.text_width
    sizes = {"positions": config.length, "features": width, "width": 4 * width}
    sizes |= {"layers": config.text_layers, "heads": config.heads}

    def build(rngs):
        return CausalTransformer(vocabulary=vocabulary, **sizes, rngs=rngs)

    rule = optax.adamw(optax.cosine_decay_schedule(config.text_rate, config.text_steps))
    return {
        "transformer": lambda: Training(build, rule, arrays, config.text_batch, config.text_steps)
    }


def _manual(size):
    """The first bytes of the language reference that Python's own help prints."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics)).encode()[:size]
    tokens = np.frombuffer(text, np.uint8)
    return Text(tokens, 256, "python_manual", "Python's manual", "")
