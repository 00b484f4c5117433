# SPDX-License-Identifier: Apache-2.0
"""The problems of a configuration, and training on them."""

import dataclasses
import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.matrix_sensing.config import Config
from plprune import matrix_sensing as ms

BLOCK_BYTES = 2**27  # Of streamed measurements at a time.


class Trained(NamedTuple):
    """A trained factor and what is needed to go on from it."""

    problem: ms.Problem  # In float64.
    factor: jax.Array  # In float32, as trained.
    steps: int
    seconds: float


def grid_config(config: Config) -> Config:
    """The same with the size, noise and strength of the figures with many runs."""
    return dataclasses.replace(
        config, d=config.grid_d, k=config.grid_d, r=config.grid_r, n=config.grid_n,
        sigma=config.grid_sigma, lam=config.grid_lam, operator="gaussian",
    )  # fmt: skip


def keys_of(seed: int) -> dict[str, jax.Array]:
    """One key for each random part of a run."""
    names = ("truth", "measurements", "noise", "start")
    return dict(zip(names, _split(jax.random.key(seed), len(names)), strict=True))


def make_problem(config: Config, seed: int) -> ms.Problem:
    """Truth with singular values 1, and its population loss or its n noisy measurements."""
    keys = keys_of(seed)
    truth = ms.low_rank_truth(config.d, jnp.ones(config.r, jnp.float64), key=keys["truth"])
    if config.n == 0:
        return ms.Problem(truth, ms.GAUSSIAN)
    measurements = _measurements(config, keys["measurements"])
    return ms.observe(truth, measurements, noise=config.sigma, key=keys["noise"])


def make_start(config: Config, seed: int) -> jax.Array:
    """The small random start, in float32."""
    return ms.small_start(config.d, config.k, scale=config.start, key=keys_of(seed)["start"])


def cast(tree, dtype):
    """The tree with its floating-point leaves in another dtype."""

    def leaf(x):
        is_float = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)
        return x.astype(dtype) if is_float else x

    return jax.tree.map(leaf, tree)


@functools.lru_cache(maxsize=64)
def trained(config: Config, seed: int, *, regularised: bool) -> Trained:
    """Training from the small start, in float32, with or without the regulariser."""
    problem, start = make_problem(config, seed), make_start(config, seed)
    steps = config.steps if regularised else config.plain_steps
    strength = config.lam if regularised else 0.0
    single = cast(problem, jnp.float32)

    def run(num_steps):
        end = _descend(config, single, start, config.step_size, num_steps, strength, config.tol)
        return jax.block_until_ready(end)

    run(0)  # Compiles.
    began = time.perf_counter()
    end = run(steps)
    return Trained(problem, end.factor, int(end.steps), time.perf_counter() - began)


def finished(config: Config, run: Trained) -> jax.Array:
    """The kept columns at the regularised optimum to float64's precision, not float32's.

    What float32 leaves over would decay at a rate of its own after fine-tuning removed the rest.
    """
    kept = ms.prune(run.factor, ms.threshold(config.beta)).astype(jnp.float64)
    step_size = config.step_size / 2
    return _descend(config, run.problem, kept, step_size, config.steps, config.lam, 1e-13).factor


def fine_tuned(config: Config, problem: ms.Problem, pruned: jax.Array) -> jax.Array:
    """`pruned` after fine-tuning without the regulariser, in float64."""
    start, step_size = pruned.astype(jnp.float64), config.step_size / 2
    return _descend(config, problem, start, step_size, config.finetune_steps, 0.0, 0.0).factor


def _descend(config, problem, start, step_size, num_steps, strength, tol):
    """Every number is traced, so that runs of one shape are compiled once."""
    return _compiled(
        problem, start, step_size=step_size, num_steps=num_steps, strength=strength,
        beta=config.beta, form=config.form, tol=tol,
    )  # fmt: skip


_compiled = jax.jit(ms.descend, static_argnames="form")


@functools.partial(jax.jit, static_argnums=1)
def _split(key, count):
    return tuple(jax.random.split(key, count))


def _measurements(config, key):
    n, d = config.n, config.d
    if config.operator == "streamed":
        block = max(b for b in range(1, n + 1) if n % b == 0 and 4 * b * d**2 <= BLOCK_BYTES)
        return ms.streamed(n, block=block, key=key)
    operators = {"gaussian": ms.gaussian, "rank_one": ms.rank_one, "fourier": ms.fourier}
    return operators[config.operator](n, d, key=key)
