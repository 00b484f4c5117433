# SPDX-License-Identifier: Apache-2.0
"""The gate updates of one call: each on a part of the probe, and none of what is not a number."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from plprune.gating.objectives import Setting
from plprune.gating.options import Options
from plprune.gating.probes import sub_batch
from plprune.gating.rules import Rule
from plprune.nodes.gated_apply import gated
from plprune.norms import raised_for
from plprune.types import NodeGroups


def refresher(groups: NodeGroups, rule: Rule, options: Options, choose_at: Callable) -> Callable:
    """(state, params, model, batch, independent) -> what came of the updates of one call.

    That is gates, keep, the rule's memory, how many updates failed, and whether all did. One fails
    where its gates come of a NaN; where all do, gates and keep stay as they were.
    """

    def refreshed(state, params, model, batch, independent):
        params, inputs = raised_for(model, params, batch[0])
        batch = (inputs, batch[1])
        draws = jax.random.fold_in(state.network.key, state.step)
        choose = choose_at(state.step)

        def setting(i):
            key_probe, key_rule = jax.random.split(jax.random.fold_in(draws, i))
            inputs, labels = sub_batch(batch, options.probe_size, key_probe)
            soft = gated(model, groups)
            return Setting(soft, params, inputs, labels, options.loss, key_rule, independent)

        prepared = rule.prepare(model, setting(max(options.initial_updates, 1)))

        def once(i, carry):
            gates, memory, skipped = carry
            new, memory, ok = rule.update(memory, prepared, model, setting(i), choose)
            gates = {name: jnp.where(ok, new[name], gates[name]) for name in gates}
            return gates, memory, jnp.where(ok, skipped, skipped + 1)

        count = jnp.where(state.step == 0, options.initial_updates, 1)
        start = (state.gates, state.network.rule, jnp.zeros((), jnp.int32))
        gates, memory, skipped = jax.lax.fori_loop(0, count, once, start)
        stuck = (skipped == count) & (count > 0)
        # Gates that no update moved choose nothing: equal ones would close the last nodes.
        chosen = choose(gates)
        keep = {name: jnp.where(stuck, state.keep[name], chosen[name]) for name in state.keep}
        return gates, keep, memory, skipped, stuck

    return refreshed
