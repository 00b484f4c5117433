"""Models of text: an LSTM under normalised descent, and a small transformer under AdamW."""

import jax.numpy as jnp
import numpy as np
import optax

from experiments.alpha_beta.config import Config
from experiments.alpha_beta.networks import runs
from experiments.alpha_beta.training import Training
from experiments.progress import Progress
from plprune.data import Text, load_text, sequences
from plprune.models import CausalTransformer, LSTMLanguageModel
from plprune.optimizers import nsgd

MOMENTUM = 0.9
ADAMW_RATE = 2e-3


def lstm(config: Config, progress: Progress):
    """A 3-layer LSTM: the angle and the PL constant (figures 1, 8, 10)."""
    data, vocabulary = _text(config)
    width = config.text_width

    def build(rngs):
        return LSTMLanguageModel(vocabulary, width, (width,) * 3, rngs=rngs)

    schedule = optax.cosine_decay_schedule(config.text_rate, config.text_steps)
    return _one(config, progress, "lstm", build, nsgd(schedule, momentum=MOMENTUM), data)


def transformer(config: Config, progress: Progress):
    """A causal transformer in place of the paper's largest models (figures 7, 18, 19)."""
    data, vocabulary = _text(config)
    width = config.text_width
    sizes = {"positions": config.length, "features": width, "layers": 2, "heads": 2}

    def build(rngs):
        return CausalTransformer(vocabulary=vocabulary, width=4 * width, **sizes, rngs=rngs)

    schedule = optax.cosine_decay_schedule(ADAMW_RATE, config.text_steps)
    return _one(config, progress, "transformer", build, optax.adamw(schedule), data)


def _one(config, progress, name, build, optimizer, data):
    training = Training(build, optimizer, data, config.text_batch, config.text_steps)
    return runs(config, progress, {name: lambda: training})


def _text(config):
    if config.corpus == "python_manual":
        text = _manual(config.text)
    else:
        text = load_text(config.corpus, split=f"train[:{config.text}]")
    windows = sequences(text, config.length)
    return (jnp.asarray(windows.inputs), jnp.asarray(windows.targets)), text.num_tokens


def _manual(size):
    """The first bytes of the language reference that Python's own help prints."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics)).encode()[:size]
    tokens = np.frombuffer(text, np.uint8)
    return Text(tokens, 256, "python_manual", "Python's manual", "")
