# SPDX-License-Identifier: Apache-2.0
"""How scores are called: a probe that has what they need, and a program that is kept."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial, wraps
from inspect import signature

from plprune.compilation import are_concrete
from plprune.independence import run_where_independent
from plprune.scores.probes import Probe, check_probe, num_examples
from plprune.scores.slices import NodeScores

Score = Callable[..., NodeScores]
NO_PROBE = Probe()


def score(*needs: str) -> Callable[[Score], Score]:
    """Let plain calls of ``function(apply, params, groups, probe)`` run as programs that are kept.

    Args:
      *needs: Fields of the probe that the score cannot do without. The others it may ignore.
    """
    return lambda function: _score(function, needs)


def _score(function, needs):
    order = signature(function)

    def on_arrays(apply, params, groups, inputs, labels, key, loss, independent, **options):
        probe = Probe(inputs, labels, loss, key, independent)
        return function(apply, params, groups, probe, **options)

    @wraps(function)
    def plain(*args, **kwargs):
        _refuse_fields(function.__name__, kwargs)
        given = dict(order.bind(*args, **kwargs).arguments)
        params, probe = given.pop("params"), given.pop("probe", NO_PROBE)
        _check(plain, given["apply"], params, probe)
        arrays = {
            "params": params, "inputs": probe.inputs, "labels": probe.labels, "key": probe.key,
        }  # fmt: skip
        if not are_concrete(arrays):
            return function(*args, **kwargs)
        static = given | {"loss": probe.loss, "independent": probe.independent}
        return run_where_independent(on_arrays, static, arrays)

    vars(plain)["needs"] = needs
    return plain


def check_needs(score: Score, probe: Probe) -> None:
    """ValueError for what a score of ours needs and the probe lacks; of others nothing is known."""
    while isinstance(score, partial):
        score = score.func
    for field in getattr(score, "needs", ()):
        if getattr(probe, field) is None:
            raise ValueError(f"{score.__name__} needs {field}, got None.")


def _refuse_fields(name, keywords):
    wrong = [field.name for field in fields(Probe) if field.name in keywords]
    if wrong:
        inside = ", ".join(f"{field}={field}" for field in wrong)
        raise TypeError(
            f"{name} takes one probe in place of {', '.join(wrong)}: write "
            f"{name}(apply, params, groups, Probe({inside})), with Probe of plprune.scores."
        )


def _check(score, apply, params, probe):
    if not isinstance(probe, Probe):
        raise TypeError(
            f"probe must be a Probe of plprune.scores, got {type(probe).__name__}: write "
            f"{score.__name__}(apply, params, groups, Probe(inputs))."
        )
    check_needs(score, probe)
    if "loss" in score.needs:
        check_probe(apply, params, probe)
    elif "inputs" in score.needs:
        num_examples(inputs=probe.inputs)
