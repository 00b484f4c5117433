"""The experiment in miniature: records, figures, tables, refused settings."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from miniature import record_of

from experiments.alpha_beta import config as settings
from experiments.alpha_beta import figures, measures, run
from experiments.progress import Silent
from plprune.conditions import Records, Replay
from plprune.models import CNN

pytestmark = pytest.mark.usefixtures("models_broadcast")
QUICK = settings.PRESETS["quick"]
TINY = dataclasses.replace(
    QUICK, grid=5, samples=400, halfspace_steps=600, examples=64, epochs=2, batch=16,
    widths=(4, 16), first_width=8, channels=(2,), batches=(16,), optimizers=("adam",), text=600,
    text_steps=4, text_width=8, text_batch=2, length=8, heat=5,
)  # fmt: skip
KEYS = {"smallest_alpha", "smallest_beta", "min_angle", "pl_constant"}


def drawn(found):
    record = record_of(TINY, found)
    return figures.draw(record, found[1]), figures.tables(record)


def one(figure, **changes):
    return run.run(dataclasses.replace(TINY, **changes), figure, progress=Silent())


def test_examples_satisfy_the_condition_where_aiming_and_pl_fail():
    results, curves = one("examples")
    assert results.keys() == {"line", "two_wells", "shallow_well"}
    for found in results.values():
        assert found.keys() >= KEYS
        alphas, betas = np.array(found["smallest_alpha"]), np.array(found["smallest_beta"])
        assert (alphas >= betas + 0.1 - 1e-6).all()
    assert max(results["shallow_well"]["quasar_constant"]) < 0
    assert max(results["shallow_well"]["min_angle"]) < 0
    # The smallest alpha of the line is where 4 alpha / 5 = alpha - .1, or just above.
    np.testing.assert_allclose(results["line"]["smallest_alpha"], 0.55, atol=0.05)
    np.testing.assert_allclose(results["two_wells"]["minimum"], 0.49983, atol=6e-6)
    pictures, tables = drawn((results, curves))
    assert pictures.keys() == {"examples"}
    assert tables[0].title == "Which condition holds"
    assert [row[0].text for row in tables[0].rows] == list(results)


def test_halfspace_fails_aiming_and_keeps_a_pair():
    results, curves = one("halfspace")
    found = results["halfspace"]
    assert found.keys() >= KEYS
    assert max(found["min_angle"]) < 0
    assert all(np.isfinite(found["smallest_alpha"]))
    loss = curves["halfspace/loss_curve"]
    assert (loss[:, -100:].mean(1) < loss[:, :30].mean(1)).all()
    assert drawn((results, curves))[0].keys() == {"halfspace"}


def test_width_has_a_method_per_width_and_repeats_itself():
    results, curves = one("width")
    assert results.keys() == {"width_4", "width_16"}
    assert all(found.keys() >= KEYS for found in results.values())
    assert drawn((results, curves))[0].keys() == {"width"}
    again, same_curves = one("width", widths=(4,))
    assert again["width_4"] == results["width_4"]
    for name, curve in same_curves.items():
        np.testing.assert_array_equal(curve, curves[name])


@pytest.mark.slow
def test_optimizers_and_text_are_measured_too():
    results, curves = one("optimizer")
    assert results.keys() == {"adam"}
    assert drawn((results, curves))[0].keys() == {"optimizer"}
    results, curves = one("lstm")
    assert results["lstm"].keys() >= KEYS
    assert drawn((results, curves))[0].keys() == {"lstm"}


def records(values):
    line = jnp.asarray(values)
    return Records(line, line, line, line)


def test_a_run_that_does_not_repeat_is_refused():
    found = Replay(jnp.ones(1), records([1.0, 1.0]), np.array(False), np.array(1))
    with pytest.raises(RuntimeError, match="differ from step 1"):
        measures.measured(TINY, found, jnp.ones(4), jnp.zeros((2, 1), int))


def test_a_run_that_diverged_has_no_numbers():
    found = Replay(jnp.ones(1), records([1.0, np.nan]), np.array(True), np.array(-1))
    numbers = measures.measured(TINY, found, jnp.ones(4), jnp.zeros((2, 1), int))
    assert all(np.isnan(numbers[key]) for key in KEYS)


def test_a_model_whose_examples_interact_is_refused():
    from experiments.alpha_beta.training import Training, runner

    def build(rngs):
        return CNN((8, 8, 1), (2,), (), 10, batch_norm=True, rngs=rngs)

    data = jnp.zeros((4, 8, 8, 1)), jnp.zeros(4, int)
    with pytest.raises(ValueError, match="model without state"):
        runner(TINY, Training(build, optax.sgd(0.1), data, 2, 1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "mnist"}, "dataset must be one of"),
        ({"corpus": "wiki"}, "corpus must be one of"),
        ({"optimizers": ("sgd", "lion")}, "optimizers must be one of"),
        ({"widths": (8, 8)}, "widths must be distinct"),
        ({"channels": ()}, "channels must be distinct and at least one"),
        ({"channels": (0, 4)}, "channels must be at least 1"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"batches": (32, 1024)}, r"batches must lie in \[1, 512\]"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_bad_settings_are_named_before_the_run(changes, words):
    with pytest.raises(ValueError, match=words):
        settings.check(dataclasses.replace(QUICK, **changes))
