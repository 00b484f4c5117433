"""Model functions broadcast ranks."""

import jax
import pytest


@pytest.fixture(autouse=True)
def broadcasting(models_broadcast):
    """Let `x @ w + b` broadcast in every test here."""


@pytest.fixture(autouse=True)
def quick_compilation():
    """Compile quickly: tests run each function once or twice."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
