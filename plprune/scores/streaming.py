# SPDX-License-Identifier: Apache-2.0
"""Scores that are means over examples, taken batch by batch and part by part."""

from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp

from plprune.scores.probes import Probe, num_examples
from plprune.scores.running import Average, Score, check, mean_of_parts, run, unwrapped
from plprune.scores.slices import NodeScores
from plprune.types import Apply, NodeGroups, Params


def streamed(
    score: Score,
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probes: Probe | Iterable[Probe],
    *,
    microbatch: int | None = None,
) -> NodeScores:
    """A score over more examples than a device holds: that of all batches as one.

    ``partial(streamed, snip, microbatch=8)`` is again a score, for `prune` and `score_gating`.

    Args:
      score: One that is made of a mean over examples: `activation`, `snip` or `taylor`, or a
        `functools.partial` of it.
      apply: As given to `find_nodes`, like the other arguments.
      params: Its parameters.
      groups: From `find_nodes`.
      probes: One probe, or any iterable of them, such as a generator that reads files; each is
        asked for when the one before is done with. Examples count alike, however many a batch has.
      microbatch: Examples that are evaluated at a time, in a loop over each probe: what bounds
        memory. The score's own choice if None.

    Raises:
      TypeError: something among `probes` is no `Probe`.
      ValueError: a score that is no mean over examples, no probe, a microbatch below 1, or what
        the score raises.

    Cost: that of the score, in the memory of one microbatch and one batch of inputs. Batches of
    equal shapes share one program.
    """
    plain, options = unwrapped(score)
    average = getattr(plain, "average", None)
    if not isinstance(average, Average):
        name = getattr(plain, "__name__", repr(plain))
        raise ValueError(
            "score must be a mean over examples, activation, snip or taylor, to be streamed; "
            f"got {name}."
        )
    if microbatch is not None and microbatch < 1:
        raise ValueError(f"microbatch must be at least 1, got {microbatch}.")
    part = average.microbatch if microbatch is None else microbatch
    function = partial(mean_of_parts, partial(average.mean, **options), part)
    total, seen = None, 0
    for probe in (probes,) if isinstance(probes, Probe) else probes:
        check(plain, apply, params, probe)
        size = num_examples(inputs=probe.inputs)
        own = run(function, apply, params, groups, probe, {})
        own = jax.tree.map(lambda mean, size=size: size * mean, own)
        total = own if total is None else jax.tree.map(jnp.add, total, own)
        seen += size
    if total is None:
        raise ValueError("probes must hold at least one Probe, got none.")
    return average.finish(jax.tree.map(lambda t: t / seen, total))
