# SPDX-License-Identifier: Apache-2.0
"""The map in miniature: runs side by side are those alone, and a part gives its record."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pl_pruning.atlas import run, words
from experiments.pl_pruning.atlas.cells import Cell
from experiments.pl_pruning.atlas.config import METHODS, PRESETS
from experiments.pl_pruning.atlas.lanes import forward, indices_of, lanes_of
from experiments.pl_pruning.atlas.starts import setting_of, start_of
from experiments.pl_pruning.trainer import optimizer
from experiments.progress import Progress
from plprune.gating import with_condition
from plprune.losses import risk, squared_error
from plprune.training import make_step, run_minibatches, start

pytestmark = pytest.mark.usefixtures("models_broadcast")

TINY = replace(
    PRESETS["atlas_quick"], examples=16, width=6, probe_size=8, max_steps=40, log_every=10,
    square_target=0.35, methods=("dense", "kappa", "random"), optimizers=("adam",),
)  # fmt: skip


def test_runs_side_by_side_are_those_alone():
    cell = Cell("square", "momentum", depth=2, batch=4, target=1e-9)
    regime = setting_of(TINY, cell)[1]
    starts = [start_of(TINY, cell, "random", seed) for seed in (0, 1)]
    rates = [0.05, 0.1]
    trainer = starts[0].small.trainer
    lanes = lanes_of(regime, starts, rates)
    lanes, first = forward(regime, trainer, lanes, 0, 3)
    lanes, second = forward(regime, trainer, lanes, 3, 6)
    assert first.shape == second.shape == (2, 1)
    for place, (one, rate) in enumerate(zip(starts, rates, strict=True)):
        rule, data = optimizer(regime, rate), one.problem.data
        begun = start(one.small.first.params, one.small.first.state, rule, key=jax.random.key(0))
        pair = data.inputs, data.targets
        step = make_step(trainer.train, trainer.train_loss, rule)
        last, _ = run_minibatches(step, begun, pair, indices_of(regime, one.problem)[:6])
        mine = jax.tree.map(lambda leaf, i=place: leaf[i], lanes.states.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), mine, last.params)
        outputs = trainer.outputs(begun.params, begun.state, data.inputs)
        loss = risk(squared_error, outputs, data.targets)
        np.testing.assert_allclose(first[place], float(loss), rtol=1e-5)


def test_the_penalty_of_the_weights_is_added_every_ten_steps():
    cell = Cell("square", "momentum", depth=2, target=1e-9)
    plain = setting_of(TINY, cell)[1]
    starts, ends = [start_of(TINY, cell, "random", 0)], {}
    for weight in (0.0, 0.1):
        regime = replace(plain, penalty=weight)
        lanes = lanes_of(regime, starts, [0.05])
        moved, _ = forward(regime, starts[0].small.trainer, lanes, 0, 1)
        ends[weight] = moved.states.params
    model, first = starts[0].small.trainer.outputs, starts[0].small.first
    probe, zero = starts[0].problem.data.inputs, lambda *_: jnp.zeros(())
    total = with_condition(zero, 0.1, apply=lambda p, x: model(p, first.state, x))
    slope = jax.grad(total)(first.params, None, probe=probe, step=0, key=jax.random.key(0))
    less = jax.tree.map(lambda a, b: (a - b)[0] / 0.05, ends[0.0], ends[0.1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), less, slope)


def test_a_part_has_numbers_of_every_cell_and_method():
    results, curves = run.run(TINY, "square_2", progress=Progress())
    cell = "digits, square, adam, depth 2, none, full batch, target 0.35"
    assert curves == {}
    assert list(results) == [f"{cell}/{method}" for method in TINY.methods]
    for entries in results.values():
        assert entries.keys() == words.METRICS.keys()
        assert all(len(values) == TINY.seeds for values in entries.values())
        assert all(step is not None and 0 < step <= 40 for step in entries["steps_to_target"])
    dense, kappa = (results[f"{cell}/{method}"] for method in ("dense", "kappa"))
    assert dense["equal_steps"] == kappa["equal_steps"]
    assert dense["flops_to_target"][0] == dense["steps_to_target"][0] * dense["step_flops"][0]
    beyond = kappa["flops_to_target"][0] - kappa["steps_to_target"][0] * kappa["step_flops"][0]
    assert beyond > 20 * kappa["step_flops"][0] / 3  # Twenty updates, a pass or more each.
    assert run.run(TINY, "batches", progress=Progress()) == ({}, {})


def test_a_choice_serves_all_cells_that_differ_in_training_alone():
    cells = [Cell("square", "adam", depth=2), Cell("square", "momentum", depth=2, batch=4)]
    one, two = (start_of(TINY, cell, "random", 0) for cell in cells)
    assert one is two
    other = start_of(TINY, Cell("cross_entropy", "adam", depth=2), "random", 0)
    assert other is not one


def test_of_equal_flops_a_half_takes_all_steps_and_dense_fewer():
    cell = Cell("square", "adam", depth=2)
    assert run._fair_steps(TINY, cell, 1.0, 40) == 40
    assert run._fair_steps(TINY, cell, 1e12, 40) == TINY.log_every


def test_methods_of_the_map_are_known():
    for config in PRESETS.values():
        assert {*config.methods} <= {*METHODS}
    assert words.measured({"config": vars(PRESETS["atlas"])})[-1].startswith("dense: all nodes")
    assert jnp.isfinite(run.RATIO)
