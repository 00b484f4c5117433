# SPDX-License-Identifier: Apache-2.0
"""Numerics settings for every test, and compilation that is quick rather than good.

Compiling small functions takes most of the tests' time. What is compiled is the same program
without XLA's and LLVM's costly passes; a module with long numerical loops asks for them by
`pytestmark = pytest.mark.usefixtures("optimised")`. Processes that tests start inherit all this.
"""

import gc
import os
from importlib.metadata import version

from packaging.version import Version

# Read when the first array is made. The older emitters compile in half the time, and LLVM without
# threads of its own in a fifth less; jaxlib 0.12 no longer has those emitters, and XLA ends the
# process (pytest says nothing) at a flag that it doesn't know.
if Version(version("jaxlib")) < Version("0.12"):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"

import jax
import pytest

from tests.checking import check_what_is_annotated

check_what_is_annotated()
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


# Tracing makes and drops many small objects, and looking for cycles among them took a sixteenth of
# the tests' time; what importing made stays and need not be looked at again.
gc.set_threshold(10_000, 10, 10)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="module")
def optimised():
    """Compile well: for loops whose steps take longer than compiling them does."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


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
