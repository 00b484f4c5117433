# SPDX-License-Identifier: Apache-2.0
"""The optax transformation that learns gates, closes nodes and trains the open ones."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from plprune.compilation import are_concrete, run_once
from plprune.gating.networks import gating_network
from plprune.gating.objectives import Objective, log_condition_number
from plprune.gating.options import Options, check_counts, gated_sizes, with_state
from plprune.gating.probes import as_batch, check_batch, check_moved, on_inputs
from plprune.gating.refreshing import refresher
from plprune.gating.relaxations import Relaxation, sigmoids
from plprune.gating.rules import Rule, Score, learned, promotion, scored
from plprune.gating.trees import check_trained, open_gradient, shifted, towards
from plprune.independence import on_its_word
from plprune.nodes import mask
from plprune.types import Apply, NodeGroups

_RATES = {"logits": 0.2, "mlp": 0.03}  # Of Adam on the gating network's weights.


class Network(NamedTuple):
    """What the gating rule remembers, and the key that its draws are folded from."""

    rule: Any
    key: PRNGKeyArray
    skipped: Int[Array, ""]  # Gate updates so far that changed nothing because of a NaN.


class GatingState(NamedTuple):
    """Everything that gating remembers between steps."""

    step: Int[Array, ""]
    gates: dict[str, Float[Array, " g"]]  # As of the last gate update.
    keep: dict[str, Bool[Array, " g"]]  # True where the node is open.
    saved: optax.Params  # Last values of the closed nodes' slices, zero elsewhere.
    network: Network
    inner: optax.OptState


def pl_gating(
    inner: optax.GradientTransformation,
    apply: Apply,
    groups: NodeGroups,
    *,
    keep_fraction: float,
    key: PRNGKeyArray,
    initial_updates: int = 20,
    period: int | None = None,
    freeze_at: int | None = None,
    schedule: str = "one_shot",
    budget: str = "group",
    min_fraction: float = 0.0,
    node_costs: Mapping[str, float] | None = None,
    exclude: str | tuple[str, ...] = (),
    within_heads: bool = False,
    probe_size: int = 64,
    network: str = "logits",
    objective: Objective | None = None,
    relaxation: Relaxation | None = None,
    gate_optimizer: optax.GradientTransformation | None = None,
    loss: Callable | None = None,
    independent: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Train the open nodes with `inner`, and choose them by the condition number of the model.

    Gates are learned by minimising the condition number of the tangent kernel on random parts of a
    probe batch; the nodes with the largest gates stay open, as many as the budget allows. Our
    design, after the abstract of [Chen 2023].

    A closed parameter w receives the update -w, so after `optax.apply_updates` closed nodes are
    exactly zero whatever `inner` does, and `inner` sees zero gradients there. Their last values are
    kept, and come back when a node reopens before `freeze_at`. Once the nodes are final, continue
    on the small model with ``shrink(params, groups, state.keep)`` and
    ``shrink(state.inner, groups, state.keep)``; shrinking happens outside jit.

    In an ``optax.chain`` gating must come last: whatever clips or scales after it changes -w too,
    and closed nodes stay open without an error. Masks and partitions (``optax.masked``,
    ``optax.partition``) go into `inner`: around gating they hide leaves from it, whose slices of
    closed nodes then go on moving. ``optax.MultiSteps`` may go around: nodes close at its first
    full step, on the probe of that call, and each call on the way there pays for a gate update;
    as `inner` it is cheaper.

    Args:
      inner: The optimiser of the open nodes; a chain, a mask or a partition where there is one.
      apply: The model that `groups` were found on, on the parameters that are trained.
      groups: From `find_nodes`; groups that are prunable and gateable are gated.
      keep_fraction: Final fraction of nodes to keep, in (0, 1].
      key: Draws sub-batches and projections.
      initial_updates: Gate updates within the first call, at least 0.
      period: Steps between later gate updates, one each; None gates in the first call only.
      freeze_at: First step without gate updates; None never freezes.
      schedule: How the kept fraction falls until then: "one_shot", or as in `kept_fraction`.
      budget: "group", "global" or "cost", as in `keep_top`.
      min_fraction: Part of every group that is kept in any case.
      node_costs: Group name -> cost of one node (`node_flops`); "cost" needs it.
      exclude: Names or patterns of groups to leave alone.
      within_heads: Gate the widths within attention heads too; `keep_top` says why not.
      probe_size: Examples that each gate update draws, one from each of as many equal runs of the
        probe; a smaller probe is used whole.
      network: Where the gates' logits come from: "logits", a free one per node, or "mlp", one
        perceptron for the nodes of a kind, which reads `node_statistics`.
      objective: What the gates minimise; `log_condition_number()` if None.
      relaxation: Logits to the soft gates it is differentiated in; `sigmoids()` if None.
      gate_optimizer: Moves its weights; if None ``optax.adam``, at 0.2 ("logits") or 0.03 ("mlp").
      loss: Given a loss, the probe is a pair (inputs, labels).
      independent: Your word that `apply` treats examples independently, as for `tangent_kernel`.

    Returns:
      A transformation with a `GatingState` and
      ``update(gradients, state, params, *, probe, model_state=None)``. `probe` is a batch of
      inputs, or (inputs, labels) with a `loss`; with `model_state` the model is called as
      ``apply(params, model_state, inputs)``. Further keywords go to `inner`.

    Raises:
      ValueError: an argument out of range, or no group that can be gated; `init` of a tree that is
        not the groups', lacks a weight of a gated node or holds a random key; `update` without
        params, or with a probe that is no batch: not a pair where there is a `loss`, empty, or
        with leaves that differ in their number of examples; or, for an objective with a kernel,
        with a model that `tangent_kernel` refuses.

    A gate update of which anything is NaN changes nothing: gates and `keep` stay as they were, and
    ``state.network.skipped`` counts it. Outside `jit`, where values are known, it is a ValueError
    if a parameter or the probe holds a NaN, if all gate updates of the call come to nothing, or if
    a label is beyond the classes; under `jit` these are yours to look at. Half-precision models are
    gated in float32, unless they insist on their own dtype.

    Cost: one gate update takes about as long as a few training steps at batch `probe_size`. Under
    `vmap` every call pays for one, since a batched condition runs both of its branches: gate seed
    by seed, or train seeds together after shrinking.
    """
    sizes = gated_sizes(groups, exclude, within_heads=within_heads)
    rule = learned(
        gating_network(network, groups, sizes),
        log_condition_number() if objective is None else objective,
        sigmoids() if relaxation is None else relaxation,
        optax.adam(_RATES[network]) if gate_optimizer is None else gate_optimizer,
    )
    check_counts(initial_updates=(initial_updates, 0))
    options = Options(
        keep_fraction, initial_updates, period, freeze_at, schedule, budget, min_fraction,
        node_costs, probe_size, loss, independent,
    )  # fmt: skip
    return _gated(inner, apply, groups, rule, sizes, options, key)


def score_gating(
    inner: optax.GradientTransformation,
    apply: Apply,
    groups: NodeGroups,
    *,
    score: Score,
    keep_fraction: float,
    key: PRNGKeyArray,
    period: int | None = None,
    freeze_at: int | None = None,
    schedule: str = "one_shot",
    budget: str = "group",
    min_fraction: float = 0.0,
    node_costs: Mapping[str, float] | None = None,
    exclude: str | tuple[str, ...] = (),
    within_heads: bool = False,
    probe_size: int = 64,
    loss: Callable | None = None,
    independent: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """As `pl_gating`, but nodes are ranked by a score: the baselines under the same schedule.

    `score` is called ``score(apply, params, groups, probe) -> {name: [g]}``, larger = keep, with a
    `plprune.scores.Probe`, in the first call and at every later gate update; the scores are the
    gates. The other arguments, the state, the update and the errors are those of `pl_gating`.

    Raises:
      TypeError: a score that cannot be called so.
    """
    sizes = gated_sizes(groups, exclude, within_heads=within_heads)
    rule = scored(groups, sizes, score)
    options = Options(
        keep_fraction, 1, period, freeze_at, schedule, budget, min_fraction, node_costs,
        probe_size, loss, independent,
    )  # fmt: skip
    return _gated(inner, apply, groups, rule, sizes, options, key)


def _gated(inner, apply, groups, rule: Rule, sizes, options: Options, key):
    """The transformation around any rule."""
    inner = optax.with_extra_args_support(inner)
    refreshed = refresher(groups, rule, options, options.chooser(groups, sizes))

    def init(params):
        check_trained(params, groups, sizes)
        return GatingState(
            step=jnp.zeros((), jnp.int32),
            gates={name: jnp.ones(size, jnp.float32) for name, size in sizes.items()},
            keep={name: jnp.ones(size, bool) for name, size in sizes.items()},
            saved=optax.tree.zeros_like(params),
            # A copy of the key: states are donated, and the key is the caller's.
            network=Network(rule.init(key), jnp.array(key, copy=True), jnp.zeros((), jnp.int32)),
            inner=inner.init(params),
        )

    def update(gradients, state, params=None, *, probe=None, model_state=None, **extra):
        if params is None:
            raise ValueError("update needs params: closed nodes move by -params.")
        model = on_inputs(with_state(apply, model_state), groups, options.loss)
        batch = as_batch(probe, options.loss)
        check_batch(model, params, batch, options.loss)

        arrays = {
            "gradients": gradients, "state": state, "params": params,
            "batch": batch, "model_state": model_state, "extra": extra,
        }  # fmt: skip
        updates, state, skipped, stuck = _run(step, options, arrays, model)
        check_moved(skipped, stuck, params, batch)
        return updates, state

    def step(gradients, state, params, batch, model_state, extra, independent):
        model = on_inputs(with_state(apply, model_state), groups, options.loss)

        # Values and masks change where an update is due only; other steps skip both.
        def reopened(independent):
            full = _where(_open_entries(params, groups, state.keep), params, state.saved)
            gates, keep, *rest = refreshed(state, full, model, batch, independent)
            zeros, stays = optax.tree.zeros_like(params), _open_entries(params, groups, keep)
            values, saved = _where(stays, full, zeros), _where(stays, zeros, full)
            memory, skipped, stuck = rest
            return Chosen(gates, keep, memory, values, saved, skipped, stuck)

        def unchanged():
            none, never = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
            kept = (state.gates, state.keep, state.network.rule, params, state.saved)
            return Chosen(*kept, none, never)

        def chosen(word):
            return jax.lax.cond(options.is_due(state.step), partial(reopened, word), unchanged)

        examples = options.examples(batch[0])
        now = on_its_word(chosen, independent, (model, params, examples))
        is_open = _open_entries(params, groups, now.keep)
        gradients = jax.tree.map(open_gradient, is_open, gradients, params)
        with promotion():
            updates, inner_state = inner.update(gradients, state.inner, now.values, **extra)
        moved = jax.tree.map(shifted, updates, now.values, params)
        closing = jax.tree.map(towards, params, mask(now.values, groups, now.keep))
        state = GatingState(
            step=optax.safe_increment(state.step),
            gates=now.gates,
            keep=now.keep,
            saved=now.saved,
            network=Network(now.memory, state.network.key, state.network.skipped + now.skipped),
            inner=inner_state,
        )
        return _where(is_open, moved, closing), state, now.skipped, now.stuck

    return optax.GradientTransformationExtraArgs(init, update)


def _run(step, options: Options, arrays, model):
    """One step; in a plain call as a compiled program that is kept."""
    if not are_concrete(arrays):
        return step(**arrays, independent=options.independent)

    def call(word):
        return run_once(_called, {"step": step, "independent": word}, {"arrays": arrays})

    examples = options.examples(arrays["batch"][0])
    return on_its_word(call, options.independent, (model, arrays["params"], examples))


def _called(step, independent, arrays):
    return step(**arrays, independent=independent)


class Chosen(NamedTuple):
    """What a step goes by, after the gate updates that were due at it."""

    gates: Any
    keep: Any
    memory: Any  # Of the rule.
    values: Any  # Parameters with reopened nodes back at their saved values.
    saved: Any
    skipped: Any  # Gate updates of this step that came of no numbers.
    stuck: Any  # Whether all of them did.


def _open_entries(params, groups, keep):
    """True at every entry of the parameters that belongs to open nodes only."""
    ones = jax.tree.map(lambda p: jnp.ones(jnp.shape(p), jnp.float32), params)
    return jax.tree.map(lambda m: m == 1, mask(ones, groups, keep))


def _where(condition, if_true, if_false):
    return jax.tree.map(jnp.where, condition, if_true, if_false)
