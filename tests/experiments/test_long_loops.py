# SPDX-License-Identifier: Apache-2.0
"""Loops in stretches: the bits of one scan, wherever they are cut, saved, killed and resumed."""

import shutil
from contextlib import suppress
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from experiments.checkpoints import Checkpoints
from experiments.long_loops import Diverged, stretches
from experiments.progress import Progress
from experiments.resuming import Kept

LENGTH = 60
ROWS = np.random.default_rng(0).normal(size=(LENGTH, 8, 3))
OPTIMIZER = optax.adam(0.05)


class Killed(BaseException):
    """Stands for a process that is gone."""


class State(NamedTuple):
    params: dict
    optimizer: optax.OptState
    key: jax.Array
    records: jax.Array  # NaN where nothing is yet.


class Seen(NamedTuple):
    loss: jax.Array
    norms: jax.Array


@jax.jit
def stretch(state, rows):
    def body(state, row):
        step = jnp.sum(jnp.isfinite(state.records))
        noise = 0.1 * jax.random.normal(jax.random.fold_in(state.key, step), (row.shape[0], 2))

        def loss(params):
            out = jnp.tanh(row @ params["w"]) @ params["v"] + noise
            return jnp.mean(jnp.square(out - row[:, :2])) + 1e-3 * optax.tree.norm(params)

        value, slope = jax.value_and_grad(loss)(state.params)
        updates, optimizer = OPTIMIZER.update(slope, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        records = state.records.at[step].set(value)
        norms = jnp.stack([optax.tree.norm(slope), optax.tree.norm(params)])
        return State(params, optimizer, state.key, records), Seen(value, norms)

    return lax.scan(body, state, rows)


def first():
    keys = jax.random.split(jax.random.key(1))
    params = {
        "w": jax.random.normal(keys[0], (3, 4)),
        "v": jax.random.normal(keys[1], (4, 2)),
    }
    records = jnp.full(LENGTH, jnp.nan)
    return State(params, OPTIMIZER.init(params), keys[0], records)


def bits(end, infos):
    leaves = [jax.random.key_data(end.key), *jax.tree.leaves(end._replace(key=())), *infos.values()]
    return [(str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for leaf in leaves]


@pytest.fixture(scope="module")
def whole():
    """The loop as one scan."""
    end, seen = stretch(first(), ROWS)
    return bits(end, seen._asdict())


def kept(folder, *, save_every=0.0, tell=pytest.fail):
    folder.mkdir(exist_ok=True)
    return Progress(Kept(folder, "run", tell, save_every))


def steps(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def killing(at, calls):
    """The loop's `advance` in a process that dies at its call number `at`."""

    def advance(state, rows):
        if next(calls) == at:
            raise Killed
        return stretch(state, rows)

    return advance


@pytest.mark.parametrize("every", [None, 7, 59, 60, 1])
def test_stretches_give_the_bits_of_one_scan(whole, every):
    assert bits(*Progress().carry("a", first(), ROWS, stretch, every=every)) == whole


@pytest.mark.parametrize("length", [0, 1, 2, 3, 17, 101, 997, 1000, 6000, 100_003])
@pytest.mark.parametrize("every", [None, 1, 2, 10, 10**6])
def test_stretches_cover_the_loop_in_few_lengths_and_no_single_steps(length, every):
    stops = [0, *stretches(length, every)]
    lengths = np.diff(stops)
    assert stops[-1] == length
    assert all(lengths > 1) or length == 1
    assert len(set(lengths)) <= 2
    if every is None and length > 1000:
        assert 10 <= len(lengths) <= 101


def test_a_loop_goes_on_from_its_last_checkpoint(whole, tmp_path):
    calls = iter(range(100))
    with suppress(Killed):
        kept(tmp_path / "a").carry("a", first(), ROWS, killing(4, calls), every=10)
    (folder,) = (tmp_path / "a").glob("*.steps")
    assert steps(folder) == [20, 30, 40]  # The newest three.
    told = []
    again = kept(tmp_path / "a", tell=told.append)
    found = again.carry("a", first(), ROWS, killing(99, calls), every=10)
    assert bits(*found) == whole
    assert next(calls) == 7  # Four stretches, one that died, and the two that were left.
    assert not told
    shutil.rmtree(tmp_path / "a")


def test_checkpoints_go_with_the_piece_around_the_loop(whole, tmp_path):
    progress = kept(tmp_path)

    def work():
        end, infos = progress.carry("a", first(), ROWS, stretch, every=20)
        assert len(list(tmp_path.glob("*.steps"))) == 1
        assert bits(end, infos) == whole
        return {"loss": infos["loss"]}

    progress.once("piece", work)
    assert [path.name for path in tmp_path.iterdir()] == ["piece.npz"]


def test_a_finished_loop_of_an_unfinished_piece_is_not_run_again(whole, tmp_path):
    kept(tmp_path).carry("a", first(), ROWS, stretch, every=20)
    found = kept(tmp_path).carry("a", first(), ROWS, lambda *_: pytest.fail("done already"))
    assert bits(*found) == whole


def test_short_loops_write_nothing(tmp_path):
    kept(tmp_path, save_every=60).carry("a", first(), ROWS, stretch)
    assert list(tmp_path.iterdir()) == []


def test_two_loops_of_one_name_are_refused(tmp_path):
    store = kept(tmp_path)
    store.carry("a", 0, 3, lambda state, rows: (state + len(rows), None))
    with pytest.raises(ValueError, match="two loops are named 'a'"):
        store.carry("a", 0, 3, lambda state, rows: (state + len(rows), None))


def test_weak_types_are_the_same_before_and_after_a_checkpoint(tmp_path):
    def advance(state, rows):
        return state * jnp.ones((), jnp.bfloat16) + 0.1 * len(rows), None

    end, _ = Progress().carry("a", 1.0, 6, advance, every=2)
    calls = iter(range(10))
    with suppress(Killed):

        def dying(state, rows):
            if next(calls) == 1:
                raise Killed
            return advance(state, rows)

        kept(tmp_path).carry("a", 1.0, 6, dying, every=2)
    again, _ = kept(tmp_path).carry("a", 1.0, 6, advance, every=2)
    assert (again.dtype, float(again)) == (end.dtype, float(end))


def test_a_number_that_is_not_finite_stops_the_run_with_step_and_metric(tmp_path):
    def advance(state, rows):
        values = np.arange(rows.start, rows.stop, dtype=float)
        return state + len(rows), {"loss": np.where(values == 37, np.inf, values)}

    with pytest.raises(Diverged, match=r"^gd/a diverged: loss is inf at step 37\.$"):
        kept(tmp_path).carry("gd/a", 0, 100, advance, every=10)
    (folder,) = tmp_path.glob("*.steps")
    assert steps(folder) == [10, 20, 30]  # What diverged is never a checkpoint.
    _, infos = Progress().carry("gd/a", 0, 100, advance, every=10, may_diverge=True)
    assert np.isinf(infos["loss"][37])


def test_an_interruption_saves_what_was_done(whole, tmp_path):
    calls = iter(range(100))

    def advance(state, rows):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return stretch(state, rows)

    with suppress(KeyboardInterrupt):
        kept(tmp_path, save_every=60).carry("a", first(), ROWS, advance, every=10)
    (folder,) = tmp_path.glob("*.steps")
    assert steps(folder) == [30]
    assert bits(*kept(tmp_path).carry("a", first(), ROWS, advance, every=10)) == whole
    assert next(calls) == 7


def test_a_checkpoint_that_cannot_be_saved_is_told_and_the_loop_goes_on(
    whole, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    told, calls = [], iter(range(10))
    progress = kept(tmp_path, tell=told.append)

    def advance(state, rows):
        if next(calls) == 2:
            monkeypatch.setattr(Checkpoints, "save", full)
        return stretch(state, rows)

    assert bits(*progress.carry("a", first(), ROWS, advance, every=20)) == whole
    assert told == ["a checkpoint of a could not be saved: [Errno 28] No space left on device"]
    (folder,) = tmp_path.glob("*.steps")
    assert steps(folder)  # Those from before are still there.


def test_an_advance_that_tells_too_much_is_refused():
    for infos in ({"x": np.ones(4)}, {"x": 1.0}, {"x": np.array(["a"])}):
        with pytest.raises(ValueError, match="x must be numbers of at most 3 steps"):
            Progress().carry("a", 0, 3, lambda state, _, infos=infos: (state, infos))
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Progress().carry("a", 0, 3, lambda state, _: (state, None), every=0)
    with pytest.raises(ValueError, match="one leading axis"):
        Progress().carry("a", 0, {"x": np.ones(3), "y": np.ones(4)}, lambda *_: None)


def walk(store, stop=None):
    """A loop that its caller runs: sums with a curve, interrupted after `stop` steps."""
    with store.loop("walk") as loop:
        state, done, curve = {"sum": jnp.zeros(()), "best": jnp.ones(2)}, 0, []
        if here := loop.latest(state):
            done, state, curve = here.done, here.state, here.infos["curve"].tolist()
        began = done
        while done < 9:
            if done == stop:
                raise KeyboardInterrupt
            done += 1
            state = state | {"sum": state["sum"] + done / 3}
            curve.append(float(state["sum"]))
            loop.offer(done, state, {"curve": curve})
    return began, float(state["sum"]), curve


@pytest.mark.parametrize("save_every", [0, 60])
def test_a_loop_that_its_caller_runs_goes_on_too(tmp_path, save_every):
    _, *expected = walk(Progress())
    with suppress(KeyboardInterrupt):
        walk(kept(tmp_path, save_every=save_every), stop=5)
    began, *found = walk(kept(tmp_path))
    assert began == 5
    assert found == expected
