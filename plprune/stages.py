# SPDX-License-Identifier: Apache-2.0
"""From a model to a training step that prunes it, and from there to training what is left."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from plprune.functional import Functional, paired
from plprune.gating import pl_gating, score_gating
from plprune.gating.rules import Score
from plprune.losses import Loss
from plprune.nodes import find_nodes, shrink
from plprune.nodes.functionals import shrink_functional
from plprune.training import Step, TrainState, make_step, start
from plprune.types import Inputs, Keep, NodeGroups


class Stage(NamedTuple):
    """A model, where its training stands, and one step of it."""

    model: Functional
    train_state: TrainState
    step: Step  # (train_state, (inputs, labels)) -> (train_state, TrainInfo); for jit and scan.


class GatedTraining(NamedTuple):
    """Training that closes nodes, before its first step, and how to go on without them."""

    groups: NodeGroups
    train_state: TrainState
    step: Step  # (train_state, (inputs, labels)) -> (train_state, TrainInfo); for jit and scan.
    finish: Callable[[TrainState], tuple[Stage, Keep]]  # Of any later state; outside of jit.


def gated_training(
    model: Functional,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    inputs: Inputs,
    *,
    keep_fraction: float,
    key: PRNGKeyArray,
    score: Score | None = None,
    **options: Any,
) -> GatedTraining:
    """Everything between a model and a smaller one: groups, first state, training step, shrinking.

    In a step the loss and its gradient are those of training mode, with dropout and with BatchNorm
    on the batch's own statistics, which are averaged as the model does it; where gates are due they
    are learned in evaluation mode, on the step's batch and the state that it began with, because
    a kernel needs examples that do not interact. One set of groups, on the pair (params, state),
    serves both, as well as masking, shrinking and files.

    It only puts together what is public: `find_nodes`, `pl_gating`, `training.make_step`, `shrink`
    and `nodes.shrink_functional`. For another probe than the batch, or a step of your own, do that.

    Args:
      model: Taken apart by `plprune.functional`, with or without state; NNX, Linen or any other.
      optimizer: Any of optax: schedules, clipping and weight decay in one chain, masks and
        partitions too.
      loss: Per-example losses of (outputs, labels).
      inputs: An example batch, or its shapes.
      keep_fraction: As `pl_gating`.
      key: For gating and for dropout.
      score: Ranks nodes in place of the condition number, as in `score_gating`.
      **options: Of `pl_gating`, or of `score_gating` where there is a score: when and how gates are
        updated, budgets, `exclude`.

    Returns:
      A `GatedTraining`. `finish` takes the train state after any step to a `Stage`: the smaller
      model, its train state with the optimiser's own state cut along, and its step, in which
      nothing is gated any more; and to `keep`, which `shrink`, `shrink_model` and `save_shrunk`
      take. The optimiser's step count goes on, so that a schedule does.

    Raises:
      ValueError: as `pl_gating`. `step` raises what its update does.
    """
    variables = (model.params, model.state)
    groups = find_nodes(paired(model), variables, inputs)
    key_gates, key_steps = jax.random.split(key)
    common = {"keep_fraction": keep_fraction, "key": key_gates, "loss": loss, **options}
    if score is None:
        gating = pl_gating(optimizer, model.apply, groups, **common)
    else:
        gating = score_gating(optimizer, model.apply, groups, score=score, **common)
    plain = make_step(model.train, loss, gating)

    def step(train_state, batch, **extra):
        return plain(train_state, batch, probe=batch, model_state=train_state.state, **extra)

    def finish(train_state):
        keep = {name: np.asarray(kept) for name, kept in train_state.opt_state.keep.items()}
        own = model._replace(params=train_state.params, state=train_state.state)
        small = shrink_functional(own, groups, keep)
        state = train_state._replace(
            params=small.params,
            state=small.state,
            opt_state=shrink(train_state.opt_state.inner, groups, keep),
        )
        return Stage(small, state, make_step(small.train, loss, optimizer)), keep

    first = start(model.params, model.state, gating, key=key_steps)
    return GatedTraining(groups, first, step, finish)
