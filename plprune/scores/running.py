# SPDX-License-Identifier: Apache-2.0
"""How scores are called: a probe that has what they need, and a program that is kept."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial, wraps
from inspect import signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plprune.compilation import are_concrete
from plprune.independence import run_where_independent
from plprune.scores.probes import Probe, check_probe, num_examples
from plprune.scores.slices import NodeScores
from plprune.types import Apply, NodeGroups, Params

Score = Callable[..., NodeScores]
NO_PROBE = Probe()


class Average(NamedTuple):
    """A score made of a mean over examples, which parts of a batch give as well as the whole."""

    mean: Callable[..., NodeScores]  # Called as a score, on any part.
    finish: Callable[[NodeScores], NodeScores]  # The mean over all examples -> the scores.
    microbatch: int | None  # Examples at a time where nothing else is asked for; None: all.


def score(
    *needs: str,
    finish: Callable[[NodeScores], NodeScores] | None = None,
    microbatch: int | None = None,
) -> Callable[[Score], Score]:
    """Let plain calls of ``function(apply, params, groups, probe)`` run as programs that are kept.

    Args:
      *needs: Fields of the probe that the score cannot do without. The others it may ignore.
      finish: Where it is given, what the function returns is a mean over the probe's examples, and
        this makes the scores of it: `streamed` then takes the mean part by part.
      microbatch: Examples that such a function sees at a time; all of them if None.
    """
    average = None if finish is None else partial(Average, finish=finish, microbatch=microbatch)
    return lambda function: _score(function, needs, average and average(function))


def _score(function, needs, average: Average | None):
    order = signature(function)
    called = function if average is None else partial(_averaged, average, average.microbatch)

    @wraps(function)
    def plain(*args, **kwargs):
        _refuse_fields(function.__name__, kwargs)
        given = dict(order.bind(*args, **kwargs).arguments)
        apply, params, groups = (given.pop(name) for name in ("apply", "params", "groups"))
        probe = given.pop("probe", NO_PROBE)
        check(plain, apply, params, probe)
        return run(called, apply, params, groups, probe, given)

    vars(plain)["needs"], vars(plain)["average"] = needs, average
    return plain


def run(
    function: Score,
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
    options: Mapping[str, Any],
) -> NodeScores:
    """``function(apply, params, groups, probe, **options)``, as a program where all is known."""
    arrays = {
        "params": params, "inputs": probe.inputs, "labels": probe.labels, "key": probe.key,
    }  # fmt: skip
    if not are_concrete(arrays):
        return function(apply, params, groups, probe, **options)
    static = {
        "function": function, "apply": apply, "groups": groups, "options": dict(options),
        "loss": probe.loss, "independent": probe.independent,
    }  # fmt: skip
    return run_where_independent(_on_arrays, static, arrays)


def _on_arrays(function, apply, groups, options, loss, independent, *, params, inputs, labels, key):
    probe = Probe(inputs, labels, loss, key, independent)
    return function(apply, params, groups, probe, **options)


def _averaged(average: Average, microbatch, apply, params, groups, probe, **options):
    mean = partial(average.mean, **options)
    return average.finish(mean_of_parts(mean, microbatch, apply, params, groups, probe))


def mean_of_parts(
    mean: Score,
    microbatch: int | None,
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
) -> NodeScores:
    """A mean over the examples from parts of a batch, one after the other in one loop.

    Parts take their examples from all over the batch, so that one that is spread over devices
    leaves none of them idle. A number that does not divide the batch costs a second trace.
    """
    batch = probe.inputs, probe.labels
    size = num_examples(inputs=probe.inputs, labels=probe.labels)
    part = size if microbatch is None else min(microbatch, size)
    count, rest = divmod(size, part)

    @jax.jit  # Traced once for all its calls.
    def of(examples):
        inputs, labels = examples
        return mean(apply, params, groups, replace(probe, inputs=inputs, labels=labels))

    if count == 1 and not rest:
        return of(batch)

    def strided(array):
        array = jnp.asarray(array)
        return jnp.moveaxis(array[: count * part].reshape(part, count, *array.shape[1:]), 1, 0)

    def add(total, examples):
        return jax.tree.map(jnp.add, total, of(examples)), None

    parts = jax.tree.map(strided, batch)
    like = jax.eval_shape(of, jax.tree.map(lambda a: a[0], parts))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), like)
    total = jax.tree.map(lambda t: part * t, jax.lax.scan(add, zeros, parts)[0])
    if rest:
        last = of(jax.tree.map(lambda a: jnp.asarray(a)[count * part :], batch))
        total = jax.tree.map(lambda t, own: t + rest * own, total, last)
    return jax.tree.map(lambda t: t / size, total)


def unwrapped(score: Score) -> tuple[Score, dict[str, Any]]:
    """The function within partials, and their keywords."""
    options: dict[str, Any] = {}
    while isinstance(score, partial):
        options = {**score.keywords, **options}
        score = score.func
    return score, options


def check_needs(score: Score, probe: Probe) -> None:
    """ValueError for what a score of ours needs and the probe lacks; of others nothing is known."""
    plain, _ = unwrapped(score)
    for field in getattr(plain, "needs", ()):
        if getattr(probe, field) is None:
            raise ValueError(f"{plain.__name__} needs {field}, got None.")


def _refuse_fields(name, keywords):
    wrong = [field.name for field in fields(Probe) if field.name in keywords]
    if wrong:
        inside = ", ".join(f"{field}={field}" for field in wrong)
        raise TypeError(
            f"{name} takes one probe in place of {', '.join(wrong)}: write "
            f"{name}(apply, params, groups, Probe({inside})), with Probe of plprune.scores."
        )


def check(score: Score, apply: Apply, params: Params, probe: Any) -> None:
    """That a score of ours can be called so.

    Raises:
      TypeError: not a probe.
      ValueError: one without what the score needs, or that is no batch.
    """
    if not isinstance(probe, Probe):
        raise TypeError(
            f"probe must be a Probe of plprune.scores, got {type(probe).__name__}: write "
            f"{score.__name__}(apply, params, groups, Probe(inputs))."
        )
    check_needs(score, probe)
    needs = getattr(score, "needs", ())
    if "loss" in needs:
        check_probe(apply, params, probe)
    elif "inputs" in needs:
        num_examples(inputs=probe.inputs)
