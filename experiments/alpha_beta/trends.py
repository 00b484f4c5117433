# SPDX-License-Identifier: Apache-2.0
"""Whether a record shows what the paper reports, as sentences computed from its numbers.

A difference of two means counts where it exceeds `CLEAR` standard errors of the difference, and
`MATTERS` itself.
"""

import itertools
import math
from typing import Any, NamedTuple

from experiments.tables import number

CLEAR, MATTERS = 2.0, 0.01
FLOOR = 0.11  # Means of the smallest alpha up to this do not differ: it is at least .1.
ALPHA = "smallest_alpha"
ORDERED = {
    "width": "width",
    "channels": "channels",
    "batch": "batch size",
    "depth": "depth",
}
OPTIMIZERS = ("adam", "momentum", "sgd")
PLATEAU, END = (0.45, 0.65), 0.4  # Whole losses of the half-space figure.
VERDICTS = {
    "shown": "Shown here",
    "not shown": "Not shown at this scale",
    "too noisy": "Too noisy to tell at this scale",
}
CONVERGED, UNEQUAL = 0.1, 2.0  # Above this final loss, runs with a larger ratio are unequal.
CLASSIFIERS = ("width", "channels", "batch", "depth")
ORDER = 10.0  # What "orders of magnitude" must exceed.
TINY = 1e-6  # Ten times the largest PL constant that the paper reports of LSTMs.
FLAT = 0.2  # A gradient below this share of the largest nearly vanishes (our choice).


class Trend(NamedTuple):
    """What the paper reports, what was found, and whether that shows it."""

    subject: str
    expected: str
    found: str
    verdict: str  # A key of `VERDICTS`.

    @property
    def shown(self) -> bool:
        """Whether the data show it beyond their errors."""
        return self.verdict == "shown"

    def sentence(self) -> str:
        """The three as text for a figure."""
        return f"The paper: {self.expected}. {VERDICTS[self.verdict]}: {self.found}."


def trends(record) -> dict[str, Trend]:
    """The trends of every figure whose methods the record holds, by `figure_of` their names."""
    results, found = record["results"], {}
    for prefix, label in ORDERED.items():
        methods = ordered(results, prefix)
        if len(methods) > 1:
            found[prefix] = _of_order(results, methods, label)
    named = [m for m in OPTIMIZERS if m in results]
    if len(named) > 1:
        found["optimizer"] = _falling(
            results, named[::-1], "optimiser", "alpha and beta are smaller for Adam than for "
            "momentum, and for momentum than for plain descent", every=True,
        )  # fmt: skip
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


def _of_order(results, methods, label):
    if label in ("width", "channels"):
        return _rising_then_falling(results, methods, label)
    name = "a larger batch" if label == "batch size" else "depth"
    return _falling(results, methods, label, f"alpha and beta fall with {name}")


def _rising_then_falling(results, methods, label):
    expected = f"alpha and beta rise with {label}, then fall"
    entries, name, preamble = _told_by(results, methods)
    if not entries:
        return Trend(label, expected, "no pair holds in some run", "not shown")
    inside = range(1, len(entries) - 1)
    if not inside:
        return Trend(label, expected, "two settings cannot show it", "not shown")
    peak = max(inside, key=lambda i: entries[i]["mean"])
    clear = [_steps(entries[i], entries[peak]) for i in (0, -1)]
    up = f"{'rises' if clear[0] > 0 else 'falls'} from {_told(entries[0])} at {size(methods[0])}"
    down = f"{'falls' if clear[1] > 0 else 'rises'} to {_told(entries[-1])} at {size(methods[-1])}"
    found = (
        f"{preamble}{name} {up}, by {_errors(abs(clear[0]))}, to {_told(entries[peak])} at "
        f"{size(methods[peak])}, the largest between the ends, and {down}, by "
        f"{_errors(abs(clear[1]))}{_unequal(results, methods)}"
    )
    return Trend(label, expected, found, _verdict(clear))


def _falling(results, methods, label, expected, *, every=False):
    """From the first method to the last; with `every`, from each to the next one."""
    entries, name, preamble = _told_by(results, methods)
    if not entries:
        return Trend(label, expected, "no pair holds in some run", "not shown")
    named = dict(zip(methods, entries, strict=True))
    told = ", ".join(f"{_words(m)} {_told(e)}" for m, e in named.items())
    pairs = list(itertools.pairwise(methods)) if every else [(methods[0], methods[-1])]
    falls = [_steps(named[after], named[before]) for before, after in pairs]
    changes = [
        f"{'falls' if fall > 0 else 'rises'} by {_errors(abs(fall))} from {_words(before)} to "
        f"{_words(after)}"
        for fall, (before, after) in zip(falls, pairs, strict=True)
    ]
    found = f"{preamble}{name} {' and '.join(changes)} ({told}){_unequal(results, methods)}"
    return Trend(label, expected, found, _verdict(falls))


def _verdict(clear):
    """From the differences that the paper has positive, in standard errors; 0 is no difference."""
    if min(clear) > CLEAR:
        return "shown"
    return "not shown" if min(clear) < -CLEAR or 0.0 in clear else "too noisy"


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


def _told_by(results, methods):
    """What tells the methods apart: the smallest alpha, or beta where that is at its floor."""
    entries = [results[m][ALPHA] for m in methods]
    if not _complete(entries):
        return None, "", ""
    if max(entry["mean"] for entry in entries) > FLOOR:
        return entries, "alpha", ""
    unit = [results[m]["beta_at_2"] for m in methods]
    words = "the smallest alpha is at its floor, .1 to .11; with alpha = 2, "
    return (unit, "beta", words) if _complete(unit) else (None, "", "")


def _errors(clear):
    return (
        "infinitely many standard errors" if math.isinf(clear) else f"{clear:.1f} standard errors"
    )


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
    clear = _steps(angle, {"mean": 0.0, "stderr": 0.0})
    return Trend("LSTM, cosine", expected, found, _verdict([clear]))


def _lstm_pl(results):
    """Against the smallest of the classifiers of the record."""
    expected = "the PL constant of an LSTM is orders of magnitude below others', 1e-9 to 1e-7"
    mu, subject = results["lstm"]["pl_constant"], "LSTM, PL constant"
    others = {
        m: e["pl_constant"]
        for m, e in results.items()
        if (m == "mlp" or m.rpartition("_")[0] in CLASSIFIERS) and e["pl_constant"]["mean"]
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
        return Trend("transformer", expected, "no pair holds in some run", "not shown")
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


def _steps(low, high):
    """How many standard errors of the difference `high` is above `low`; 0 where it is tiny."""
    error = math.hypot(low["stderr"] or 0.0, high["stderr"] or 0.0)
    difference = high["mean"] - low["mean"]
    if abs(difference) < MATTERS:
        return 0.0
    if not error:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / error


def _told(entry):
    return number(entry["mean"], entry["stderr"])
