"""Numerics settings for every test."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def strict_dtypes():
    """Forbid silent dtype promotion; opt-in, because optax's Adam and schedules rely on it."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def models_broadcast():
    """Let model functions broadcast ranks, as `x @ w + b` does: users write them."""
    with jax.numpy_rank_promotion("allow"):
        yield
