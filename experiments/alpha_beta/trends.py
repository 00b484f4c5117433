# SPDX-License-Identifier: Apache-2.0
"""Whether a record shows what the paper reports: differences in standard errors, and verdicts.

A difference of two means counts where it exceeds `CLEAR` standard errors of the difference, and
`MATTERS` itself.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.report.tables import number

CLEAR, MATTERS = 2.0, 0.01
FLOOR = 0.11  # Means of the smallest alpha up to this do not differ: it is at least .1.
ALPHA = "smallest_alpha"
# Prefix of a figure's methods -> what the paper reports of them.
RISES_THEN_FALLS = {
    "width": "alpha and beta rise with width, then fall",
    "channels": "alpha and beta rise with channels, then fall",
}
FALLS = {
    "batch": "alpha and beta fall with a larger batch",
    "depth": "alpha and beta fall with depth",
}
OPTIMIZERS = ("adam", "momentum", "sgd")
END = 0.4  # The whole loss that the half-space figure ends below.
VERDICTS = {
    "shown": "Shown here",
    "not shown": "Not shown at this scale",
    "too noisy": "Too noisy to tell at this scale",
}
CONVERGED, UNEQUAL = 0.1, 2.0  # Above this final loss, runs with a larger ratio are unequal.
ORDER = 10.0  # What "orders of magnitude" must exceed.
TINY = 1e-6  # Ten times the largest PL constant that the paper reports of LSTMs.
FLAT = 0.2  # A gradient below this share of the largest nearly vanishes (our choice).
NO_PAIR = "no pair holds in some run"


class Trend(NamedTuple):
    """What the paper reports, what was found, and whether that shows it."""

    subject: str
    expected: str
    found: str
    verdict: str  # A key of `VERDICTS`.
    errors: tuple[float, ...] = ()  # Differences that the paper has positive, in standard errors.

    @property
    def shown(self) -> bool:
        """Whether the data show it beyond their errors."""
        return self.verdict == "shown"

    def sentence(self) -> str:
        """All of it as text for a figure."""
        return f"The paper: {self.expected}. {VERDICTS[self.verdict]}: {self.found}."


def trends(record) -> dict[str, Trend]:
    """The trends of every figure whose methods the record holds, by `figure_of` their names."""
    results, found = record["results"], {}
    for prefix, expected in (RISES_THEN_FALLS | FALLS).items():
        methods = ordered(results, prefix)
        if len(methods) > 1:
            found[prefix] = _of_order(results, methods, prefix, expected)
    named = [m for m in OPTIMIZERS[::-1] if m in results]
    if len(named) > 1:
        expected = (
            "alpha and beta are smaller for Adam than for momentum, and for momentum than for "
            "plain descent"
        )
        pairs = list(itertools.pairwise(range(len(named))))
        found["optimizer"] = _compared(results, named, "optimiser", expected, pairs)
    if "lstm" in results:
        found["lstm"], found["lstm_pl"] = _lstm(results["lstm"]), _lstm_pl(results)
    if "transformer" in results:
        found["transformer"] = _pair_holds(results["transformer"])
    if "halfspace" in results:
        found["halfspace"] = _halfspace(results["halfspace"])
    return found


def figure_of(name: str) -> str:
    """The figure that a trend is told in."""
    return name.removesuffix("_pl")


def ordered(results, prefix: str) -> list[str]:
    """The methods PREFIX_SIZE by size."""
    return sorted((m for m in results if m.rpartition("_")[0] == prefix), key=size)


def size(method: str) -> int:
    """The number at the end of a method's name."""
    return int(method.rpartition("_")[2])


def _of_order(results, methods, prefix, expected) -> Trend:
    """From the first to the last, or from the largest between the ends to both of them."""
    subject, last = "batch size" if prefix == "batch" else prefix, len(methods) - 1
    if prefix in FALLS:
        return _compared(results, methods, subject, expected, [(0, last)])
    entries, *_ = _telling(results, methods)
    if not entries:
        return Trend(subject, expected, NO_PAIR, "not shown")
    if last < 2:
        return Trend(subject, expected, "two settings cannot show it", "not shown")
    peak = max(range(1, last), key=lambda i: entries[i]["mean"])
    return _compared(results, methods, subject, expected, [(peak, 0), (peak, last)])


def _compared(results, methods, subject, expected, pairs: Sequence[tuple[int, int]]) -> Trend:
    """Differences between methods at the places of `pairs`, whose first the paper has larger."""
    entries, name, preamble = _telling(results, methods)
    if not entries:
        return Trend(subject, expected, NO_PAIR, "not shown")
    errors = [_errors(entries[larger], entries[smaller]) for larger, smaller in pairs]
    means = ", ".join(f"{_words(m)} {_told(e)}" for m, e in zip(methods, entries, strict=True))
    differences = ", ".join(
        f"{_words(methods[larger])} less {_words(methods[smaller])} {_signed(error)}"
        for error, (larger, smaller) in zip(errors, pairs, strict=True)
    )
    found = f"{preamble}{name} of {means}; in standard errors, {differences}"
    found += _unequal(results, methods)
    return Trend(subject, expected, found, _verdict(errors), tuple(errors))


def _verdict(errors):
    """From the differences that the paper has positive; 0 is no difference."""
    if min(errors) > CLEAR:
        return "shown"
    return "not shown" if min(errors) < -CLEAR or 0.0 in errors else "too noisy"


def _unequal(results, methods):
    """A warning where the runs that are compared did not come equally far."""
    losses = {m: results[m]["final_loss"] for m in methods if "final_loss" in results[m]}
    if not losses or not _complete(list(losses.values())):
        return ""
    low, high = (f(losses, key=lambda m: losses[m]["mean"]) for f in (min, max))
    if losses[high]["mean"] <= max(CONVERGED, UNEQUAL * losses[low]["mean"]):
        return ""
    return (
        f"; the final losses differ, {_told(losses[low])} ({_words(low)}) to "
        f"{_told(losses[high])} ({_words(high)}), so that not all runs are equally converged"
    )


def _words(method):
    return method.replace("_", " ")


def _telling(results, methods):
    """What tells the methods apart: the smallest alpha, or beta where that is at its floor."""
    entries = [results[m][ALPHA] for m in methods]
    if not _complete(entries):
        return None, "", ""
    if max(entry["mean"] for entry in entries) > FLOOR:
        return entries, "alpha", ""
    unit = [results[m]["beta_at_2"] for m in methods]
    words = "the smallest alpha is at its floor, .1 to .11; with alpha = 2, "
    return (unit, "beta", words) if _complete(unit) else (None, "", "")


def _lstm(entry):
    expected = "the cosine is negative early in the training of an LSTM"
    angle = entry["early_angle"]
    if not _complete([angle]):
        return Trend("LSTM, cosine", expected, "a run diverged", "not shown")
    found = (
        f"its mean over the first twentieth of the steps is {_told(angle)}, the smallest of all "
        f"{_told(entry['min_angle'])}, and {_told(entry['negative_share'])} of the steps in the "
        "first quarter have a negative one"
    )
    error = _errors({"mean": 0.0, "stderr": 0.0}, angle)
    return Trend("LSTM, cosine", expected, found, _verdict([error]), (error,))


def _lstm_pl(results):
    """Against the smallest of the classifiers of the record."""
    expected = "the PL constant of an LSTM is orders of magnitude below others', 1e-9 to 1e-7"
    mu, subject = results["lstm"]["pl_constant"], "LSTM, PL constant"
    others = {
        m: e["pl_constant"]
        for m, e in results.items()
        if (m == "mlp" or m.rpartition("_")[0] in RISES_THEN_FALLS | FALLS)
        and e["pl_constant"]["mean"]
    }
    if not _complete([mu]):
        return Trend(subject, expected, "a run diverged", "not shown")
    if not others:
        verdict = "shown" if mu["mean"] < TINY else "not shown"
        return Trend(subject, expected, f"it is {_told(mu)}", verdict)
    least = min(others, key=lambda m: others[m]["mean"])
    (low, high), (floor, top) = _band(mu), _band(others[least])
    below = others[least]["mean"] / mu["mean"] if mu["mean"] else math.inf
    verdict = "shown" if floor > ORDER * high else "not shown" if top < ORDER * low else "too noisy"
    name = "the MLP" if least == "mlp" else _words(least)
    found = f"it is {_told(mu)}, {_rounded(below)} times below the {_told(others[least])} of {name}"
    return Trend(subject, expected, found, verdict)


def _rounded(ratio):
    return f"{float(f'{ratio:.2g}'):,.4g}" if ratio < 1e4 else f"{ratio:.1e}"


def _band(entry):
    error = CLEAR * (entry["stderr"] or 0.0)
    return entry["mean"] - error, entry["mean"] + error


def _pair_holds(entry):
    expected = "a pair holds along the whole run"
    if not _complete([entry[ALPHA]]):
        return Trend("transformer", expected, NO_PAIR, "not shown")
    told = (
        f"on every seed, with smallest alpha {_told(entry[ALPHA])}; with alpha = 2, beta is "
        f"{_told(entry['beta_at_2'])}"
    )
    return Trend("transformer", expected, told, "shown")


def _halfspace(entry):
    expected = (
        "aiming fails, and the gradient nearly vanishes at a loss of .5 to .6 that later falls to "
        "about .3"
    )
    numbers = (entry[m]["values"] for m in ("min_angle", "plateau_share", "final_loss"))
    seeds = [
        (angle < 0, share is not None and share < FLAT, end is not None and end < END)
        for angle, share, end in zip(*numbers, strict=True)
    ]
    fails, flat, falls = (sum(column) for column in zip(*seeds, strict=True))
    found = (
        f"of {len(seeds)} seeds the cosine is negative somewhere on {fails}, the whole gradient "
        f"falls below a fifth of its largest at a loss of .45 to .65 on {flat}, and the whole "
        f"loss ends below {END} on {falls}; all three on {sum(map(all, seeds))}"
    )
    return Trend("half-space", expected, found, "shown" if any(map(all, seeds)) else "not shown")


def _complete(entries: list[dict[str, Any]]) -> bool:
    return all(entry["mean"] is not None for entry in entries)


def _errors(larger, smaller) -> float:
    """The first mean less the second, in standard errors of the difference; 0 where it is tiny."""
    error = math.hypot(larger["stderr"] or 0.0, smaller["stderr"] or 0.0)
    difference = larger["mean"] - smaller["mean"]
    if abs(difference) < MATTERS:
        return 0.0
    return difference / error if error else math.copysign(math.inf, difference)


def _signed(error):
    return f"{error:+.1f}" if error else "0"


def _told(entry):
    return number(entry["mean"], entry["stderr"])
