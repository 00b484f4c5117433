# SPDX-License-Identifier: Apache-2.0
"""Figures of an experiment in miniature, and a toy experiment that needs milliseconds."""

import dataclasses
import functools
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest

import experiments
from experiments import About
from experiments.progress import Progress
from experiments.report.style import draw_curve, looks, new_figure
from experiments.report.tables import Metric

METHODS = ("dense", "kappa", "random")
METRICS = {
    "kappa": Metric("condition number", "Of a toy.", better="lower"),
    "test_accuracy": Metric("test accuracy", "Of a toy.", "%", better="higher"),
    "steps_to_target": Metric("steps to target", "Of a toy.", missing="not reached"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 5
    seed: int = 0
    seeds: int = 3
    keep: float = 0.5  # Fraction kept, in (0, 1].
    methods: tuple[str, ...] = ("dense", "kappa")
    scale: str = "A toy beside the paper's."


def check(config):
    if not 0 < config.keep <= 1:
        raise ValueError(f"keep must lie in (0, 1], got {config.keep}.")
    unknown = set(config.methods) - set(METHODS)
    if unknown:
        raise ValueError(f"no method {min(unknown)!r}; there are {', '.join(METHODS)}.")


def piece(config, method, seed):
    """What one method gives on one seed."""
    rng = np.random.default_rng([seed, len(method)])
    loss = np.exp(-np.arange(config.steps) * config.keep) + 0.01 * rng.random(config.steps)
    reached = None if method == "random" and seed == 0 else 10 + seed
    return {"loss": loss, "test_accuracy": rng.random(), "steps_to_target": reached}


def run(config, *, progress):
    results, curves = {}, {}
    for method in config.methods:
        found = []
        with progress.task(f"gd/{method}", total=config.seeds) as task:
            for seed in range(config.seed, config.seed + config.seeds):
                name = f"gd/{method}/{seed}"
                found.append(progress.once(name, lambda m=method, s=seed: piece(config, m, s)))
                task.advance(1, loss=float(found[-1]["loss"][-1]))
        numbers = {
            metric: [float(one[metric]) for one in found]
            for metric in ("test_accuracy", "steps_to_target")
        }
        results[f"gd/{method}"] = numbers | {"train_seconds": [0.1] * config.seeds}
        curves[f"gd/{method}/train_loss"] = np.stack([one["loss"] for one in found])
    return results, curves


def run_figure(config, figure, *, progress):
    """The toy as an experiment with figures of its own names."""
    results, curves = run(config, progress=progress)
    return (
        {f"{figure}/{key}": entries for key, entries in results.items()},
        {f"{figure}/{key}": array for key, array in curves.items()},
    )


def draw(record, curves):
    figure, axes = new_figure()
    look = looks((key.rpartition("/")[0] for key in curves), {})
    for key, values in curves.items():
        method, steps = key.rpartition("/")[0], np.arange(values.shape[1])
        draw_curve(axes[0, 0], steps, values, label=method, **look[method])
    axes[0, 0].set(xlabel="step", ylabel="training loss", title=record["preset"])
    axes[0, 0].legend()
    return {"loss": figure}


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """Nothing that a test compiles, here or in its processes, goes into the user's own cache."""
    monkeypatch.setattr("experiments.running.enable_compilation_cache", lambda: None)
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")


@pytest.fixture(scope="module")
def figure_run(request):
    """(results, curves) of a figure at the test module's `TINY` settings, run once each."""
    config = request.module.TINY
    run = import_module(type(config).__module__.replace("config", "run")).run
    return functools.cache(lambda figure: run(config, figure, progress=Progress()))


@pytest.fixture
def toy(monkeypatch):
    """Installs the toy as `experiments.toy`; call it to give a module other attributes."""
    path = "experiments.toy"
    presets = {"quick": Config(), "large": Config(steps=50)}
    modules = {"": {"__path__": []}}
    modules |= {
        ".config": {
            "__doc__": "A toy.\n\nMore.", "Config": Config, "PRESETS": presets, "check": check,
            "ABOUT": {
                "quick": About(0.1, claim="Little."),
                "large": About(90, "the moon", "Much.", "7 of 8."),
            },
        },
        ".run": {"run": run},
        ".figures": {"draw": lambda *_: {}},  # Drawing takes longer than all of the rest.
        ".words": {"METRICS": METRICS},
    }  # fmt: skip
    for suffix, attributes in modules.items():
        module = ModuleType(path + suffix)
        vars(module).update(attributes, __spec__=ModuleSpec(path + suffix, None))
        monkeypatch.setitem(sys.modules, path + suffix, module)
    monkeypatch.setitem(experiments.EXPERIMENTS, "toy", path)

    def change(part, **attributes):
        for name, value in attributes.items():
            monkeypatch.setattr(sys.modules[f"{path}.{part}"], name, value, raising=False)

    change.run, change.run_figure, change.draw = run, run_figure, draw
    return change
