# SPDX-License-Identifier: Apache-2.0
"""Training as pure functions: one step, and stretches of steps that replay exactly."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from plprune.losses import Loss, risk
from plprune.norms import tree_norm
from plprune.scores.probes import num_examples
from plprune.types import Params

Batch = tuple[PyTree, PyTree]  # Inputs and labels, with a common leading axis.


class TrainState(NamedTuple):
    """What the next step needs."""

    step: Int[Array, ""]
    params: Params
    state: PyTree  # Of the model, such as BatchNorm statistics.
    opt_state: optax.OptState
    key: PRNGKeyArray  # Folded with the step; dropout draws from it.


class TrainInfo(NamedTuple):
    """What a step saw, for people."""

    loss: Float[Array, "..."]  # Of the batch, before the update.
    gradient_norm: Float[Array, "..."]  # In float32 or wider.


Train = Callable[..., tuple[Array, PyTree]]  # (params, state, inputs, *, key) -> (outputs, state).
# (train_state, batch, **extra) -> (train_state, info); a `TrainInfo`, perhaps among other arrays.
Step = Callable[..., tuple[TrainState, Any]]


def start(
    params: Params, state: PyTree, optimizer: optax.GradientTransformation, *, key: PRNGKeyArray
) -> TrainState:
    """The state before the first step; the key is copied, so that the state may be donated."""
    key = jnp.array(key, copy=True)
    return TrainState(jnp.zeros((), jnp.int32), params, state, optimizer.init(params), key)


def make_step(train: Train, loss: Loss, optimizer: optax.GradientTransformation) -> Step:
    """One gradient step on the mean of `loss` over a batch.

    Args:
      train: ``(params, state, inputs, *, key) -> (outputs, new_state)``, such as
        `plprune.functional.Functional.train`.
      loss: Per-example losses of (outputs, labels).
      optimizer: Any optax transformation. It is given the keywords of the step, the batch loss as
        `value`, and, where it takes one, nothing else.

    Returns:
      ``step(train_state, (inputs, labels), **extra) -> (train_state, TrainInfo)``. The same state
      and batch give the same result, bit for bit, on the same device.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def step(train_state, batch, **extra):
        inputs, labels = batch
        key = jax.random.fold_in(train_state.key, train_state.step)

        def objective(params):
            outputs, state = train(params, train_state.state, inputs, key=key)
            return risk(loss, outputs, labels), state

        (value, state), gradients = jax.value_and_grad(objective, has_aux=True)(train_state.params)
        updates, opt_state = optimizer.update(
            gradients, train_state.opt_state, train_state.params, value=value, **extra
        )
        params = optax.apply_updates(train_state.params, updates)
        count = optax.safe_increment(train_state.step)
        info = TrainInfo(value, tree_norm(gradients))
        return TrainState(count, params, state, opt_state, train_state.key), info

    return step


def run_minibatches(
    step: Step,
    train_state: TrainState,
    data: Batch,
    indices: Int[Array, "steps batch"],
    **extra: Any,
) -> tuple[TrainState, Any]:
    """A scan of `step` over minibatches of `data`, which stays on the device.

    Args:
      step: As from `make_step`; its info may hold more arrays.
      train_state: Where to begin.
      data: (inputs, labels) of all examples.
      indices: Examples of each step, as `plprune.data.minibatches` draws them.
      **extra: Passed to every step.

    Returns:
      The last state, and the infos of all steps. Under `jax.vmap` over states (and indices) many
      seeds train at once.

    Raises:
      ValueError: inputs and labels differ in their number of examples. An index beyond them gives
        NaN, or a label that is no class.
    """
    one = _on_chosen(step)
    return jax.lax.scan(lambda s, chosen: one(s, data, chosen, **extra), train_state, indices)


@dataclass(frozen=True, eq=False)
class Stretch:
    """``(train_state, data, indices, **extra) -> (train_state, infos)``, compiled.

    From `compile_minibatches`. Equal to `run_minibatches` up to rounding. Where it does not scan it
    is not to be traced.
    """

    function: Any  # Jitted: of all indices where it scans, else of one step's.
    scans: bool

    def __call__(
        self, train_state: TrainState, data: Batch, indices: Int[Array, "steps batch"], **extra: Any
    ) -> tuple[TrainState, Any]:
        """The state after those steps and the infos of all of them; nothing is read back."""
        if self.scans:
            return self.function(train_state, data, indices, **extra)
        infos = []
        for position in range(len(indices)):
            train_state, info = self.function(train_state, data, indices[position], **extra)
            infos.append(info)
        return train_state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *infos)

    def compiled(self, train_state: TrainState, data: Batch, indices, **extra: Any) -> "Stretch":
        """The same, compiled ahead of time for arrays of these shapes."""
        chosen = indices if self.scans else indices[0]
        lowered = self.function.lower(train_state, data, chosen, **extra)
        return Stretch(lowered.compile(), self.scans)


def compile_minibatches(
    step: Step, params: Params, *, finish: Callable[[tuple[TrainState, Any]], Any] | None = None
) -> Stretch:
    """`run_minibatches` as a compiled function: one scan, or one dispatch per step.

    Steps are dispatched one by one for parameters that `scans_slowly`.

    Args:
      step: As from `make_step`; it may take keywords, and its info may hold more arrays.
      params: Of the model, or their shapes.
      finish: Applied to (train_state, infos) within every dispatch, such as to constrain sharding.
    """
    done = finish or (lambda pair: pair)
    scans, one = not scans_slowly(params), _on_chosen(step)

    def run(train_state, data, indices, **extra):
        if scans:
            return done(run_minibatches(step, train_state, data, indices, **extra))
        return done(one(train_state, data, indices, **extra))

    return Stretch(jax.jit(run), scans)


def _on_chosen(step):
    """`step` on the chosen examples of the data."""

    def one(train_state, data, chosen, **extra):
        return step(train_state, _rows(data, chosen), **extra)

    return one


def _rows(data, chosen):
    """The chosen examples of all leaves; NaN, or no class, for one that does not exist.

    A gather of JAX would clamp instead: labels that end early would repeat the last one.
    """
    is_pair = isinstance(data, tuple) and len(data) == 2
    num_examples(
        **(dict(zip(("inputs", "labels"), data, strict=True)) if is_pair else {"data": data})
    )

    def rows(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf[chosen]
        return jnp.asarray(leaf).at[chosen].get(mode="fill")

    return jax.tree.map(rows, data)


def scans_slowly(params: Params) -> bool:
    """Whether steps are faster one by one than in a scan: convolutions, on a CPU.

    XLA's CPU compiler brings convolutions into the form of its fast kernels outside of loops only:
    inside a scan the gradients of the kernels take plain loops, and a training step of a small
    convolutional network five times as long. Kernels are told by their four dimensions or more.
    """
    convolutional = any(leaf.ndim > 3 for leaf in jax.tree.leaves(params))
    return convolutional and jax.default_backend() == "cpu"


def run_full_batch(
    step: Step, train_state: TrainState, data: Batch, num_steps: int, **extra: Any
) -> tuple[TrainState, Any]:
    """A scan of `num_steps` steps, each on all of `data`; otherwise as `run_minibatches`.

    Raises:
      ValueError: `num_steps` below 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    return jax.lax.scan(lambda carry, _: step(carry, data, **extra), train_state, length=num_steps)


def minibatch_losses(
    train: Train,
    loss: Loss,
    params: Params,
    state: PyTree,
    data: Batch,
    indices: Int[Array, "steps batch"],
    *,
    key: PRNGKeyArray,
) -> Float[Array, " steps"]:
    """f_k(params) for every step k: the function that `run_minibatches` descended there.

    f_k is the mean loss of the step's minibatch in training mode, a function of the parameters
    alone: BatchNorm normalises by this very minibatch, and dropout keeps what it kept at the step.
    At the parameters of step k it is that step's loss; `jax.grad` of it is its gradient. Evaluation
    mode, or another minibatch's statistics, would be another function (derived in
    docs/mathematics/alpha_beta.md). Costs one forward pass a step, and no memory for activations.

    Args:
      train: As given to `make_step`.
      loss: As given to `make_step`.
      params: Where to evaluate, such as the last iterate.
      state: Of the model; only its shapes matter. A model whose outputs in training mode depend on
        its values has no such f_k, and gets NaN.
      data: (inputs, labels) of all examples.
      indices: Examples of each step.
      key: As given to `start`.
    """
    unknown = jax.tree.map(_unknown, state)

    def one(step_and_chosen):
        step, chosen = step_and_chosen
        inputs, labels = _rows(data, chosen)
        outputs, _ = train(params, unknown, inputs, key=jax.random.fold_in(key, step))
        return risk(loss, outputs, labels)

    return jax.lax.map(one, (jnp.arange(len(indices), dtype=jnp.int32), indices))


def _unknown(leaf):
    inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return jnp.full(leaf.shape, jnp.nan, leaf.dtype) if inexact else jnp.zeros_like(leaf)
