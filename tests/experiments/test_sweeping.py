# SPDX-License-Identifier: Apache-2.0
"""Sweeps: every cell of the grid, failed ones again, resumable; the same through Ray."""

import csv
import json
import shutil
import sys
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from rich.console import Console

import experiments.__main__ as entry
from experiments.sweeping import carry_out, parse
from experiments.sweeping.processes import Outcome
from plprune.records import read_record, write_record

pytestmark = pytest.mark.usefixtures("toy")


class InProcess:
    """A pool that runs cells here, one at a time; `fail` names those that fail, and how often."""

    def __init__(self, fail=()):
        self.fail, self.started = dict(fail), []

    def submit(self, words, log):
        name, future = log.name.removesuffix(".log"), Future()
        self.started.append(name)
        assert words[:2] == ["-m", "experiments"]
        if self.fail.get(name, 0):
            self.fail[name] -= 1
            future.set_result(Outcome(2, "experiments: no luck"))
        else:
            future.set_result(Outcome(entry.main(words[2:]), ""))
        return future

    def stop(self):
        self.started.append("stopped")


class Interrupted(InProcess):
    """Ctrl-C comes once the first cell is done."""

    def submit(self, words, log):
        if self.started:
            raise KeyboardInterrupt
        return super().submit(words, log)


def run(sweep, pool):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.sweeping.Processes", lambda _: pool)
        carry_out(sweep, Console(quiet=True))


def sweep(folder, pool, *words, grid=("keep=0.25,0.5", "steps=3,4")):
    run(parse(["toy", "--grid", *grid, "--out", str(folder), "--quiet", *words]), pool)


def standing(folder):
    found = json.loads((folder / "sweep.json").read_text())["cells"]
    return {name: (cell["state"], cell["attempts"], cell["said"]) for name, cell in found.items()}


def test_every_cell_of_the_grid_has_its_record_and_its_line(tmp_path):
    sweep(tmp_path, InProcess())
    assert [*standing(tmp_path)] == [
        "keep=0.25,steps=3", "keep=0.25,steps=4", "keep=0.5,steps=3", "keep=0.5,steps=4"
    ]  # fmt: skip
    record, curves = read_record(tmp_path / "keep=0.25,steps=4")
    assert (record["config"]["keep"], record["config"]["steps"]) == (0.25, 4)
    assert record["command"].endswith("toy --preset quick --steps 4 --keep 0.25")
    assert curves["gd/kappa/train_loss"].shape == (3, 4)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    (row,) = [
        row for row in rows
        if (row["keep"], row["steps"], row["method"], row["metric"])
        == ("0.25", "4", "gd/kappa", "test_accuracy")
    ]  # fmt: skip
    assert float(row["mean"]) == record["results"]["gd/kappa"]["test_accuracy"]["mean"]
    assert len(rows) == 4 * 2 * 3


def test_the_records_of_a_figure_are_found_in_its_folder(toy, tmp_path):
    toy("config", FIGURES=("one", "two"))
    toy("run", run=toy.run_figure)
    for pool in (InProcess(), idle := InProcess()):
        run(parse(["toy", "one", "--grid", "keep=0.25,0.5", "--out", str(tmp_path)]), pool)
    assert idle.started == []  # Done: shown again.
    assert read_record(tmp_path / "keep=0.25" / "one")[0]["config"]["keep"] == 0.25
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert {row["method"] for row in rows} == {"one/gd/dense", "one/gd/kappa"}


def test_failed_cells_are_tried_again_and_listed(tmp_path):
    pool = InProcess({"keep=0.25,steps=3": 1, "keep=0.5,steps=4": 9})
    with pytest.raises(ValueError, match=r"^1 of 4 cells failed: keep=0.5,steps=4\."):
        sweep(tmp_path, pool)
    found = standing(tmp_path)
    assert found["keep=0.25,steps=3"] == ("done", 2, "")
    assert found["keep=0.5,steps=4"] == ("failed", 2, "exit code 2: experiments: no luck")
    assert pool.started[-1] == "stopped"
    again = InProcess()
    sweep(tmp_path, again, "--resume")
    assert again.started == ["keep=0.5,steps=4", "stopped"]
    assert standing(tmp_path)["keep=0.5,steps=4"] == ("done", 3, "")


def test_an_interrupted_sweep_goes_on(tmp_path):
    pool = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, pool)
    assert pool.started == ["keep=0.25,steps=3", "stopped"]
    with pytest.raises(ValueError, match="unfinished sweep: --resume"):
        sweep(tmp_path, InProcess())
    sweep(tmp_path, InProcess(), "--resume", grid=("keep=0.25,0.5,1", "steps=3"))  # It may grow.
    assert {state for state, *_ in standing(tmp_path).values()} == {"done"}
    idle = InProcess()
    sweep(tmp_path, idle, grid=("keep=0.25,0.5", "steps=3"))  # Done: shown again.
    assert idle.started == []


def test_another_sweep_or_foreign_files_are_refused(tmp_path):
    sweep(tmp_path / "a", InProcess(), grid=("keep=0.5",))
    with pytest.raises(ValueError, match="holds a sweep of 'python -m experiments toy"):
        sweep(tmp_path / "a", InProcess(), "--seeds", "2", grid=("keep=0.5",))
    sweep(tmp_path / "a", InProcess(), "--seeds", "2", "--overwrite", grid=("keep=0.5",))
    assert read_record(tmp_path / "a" / "keep=0.5")[0]["seeds"] == [0, 1]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        sweep(tmp_path / "b", InProcess())
    for text in ("", "[]", '{"command": 1, "cells": {"a": 3}}', "[" * 10**5):
        (tmp_path / "a" / "sweep.json").write_text(text)
        with pytest.raises(ValueError, match=r"sweep\.json is damaged"):
            sweep(tmp_path / "a", InProcess(), grid=("keep=0.5",))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--grid", "keep=0.5", "--jobs", "0"), "jobs must be at least 1, got 0"),
        (("--grid", "keep=0.5", "--retries", "-1"), "retries must be at least 0"),
        (("--grid", "keep=0.5", "--gpus", "1000"), "gpus must lie in"),
        (("--grid", "keep=0.5,7"), r"cell keep=7: keep must lie in \(0, 1\], got 7.0"),
        (("--grid", "width=7"), "no setting 'width'; there are steps, seed"),
        (("--grid", "keep"), "SETTING=VALUE,..., got 'keep'"),
        (("--grid", "keep=0.5", "keep=1"), "keep is set twice"),
        (("--grid", "keep=1,1.0,1"), "keep must be given once each"),
        (("--grid", "keep=1,"), "keep must be given once each"),
        (("--grid", "methods=dense,kappa;random,x"), "cell methods=random,x: no method 'x'"),
        (("--grid", "keep=many"), "--keep"),
        (("--grid", "seed=" + ",".join(map(str, range(10_001)))), "at most 10,000 cells"),
        (("--grid",), "needs --grid"),
        ((), "needs --grid"),
        (("--grid", "keep=0.5", "--what"), "--what"),
        (("--grid", "keep=0.5", "--distributed"), "no --distributed"),
    ],
)
def test_grids_that_cannot_be_run_are_refused_in_a_line(words, message):
    with pytest.raises(ValueError, match=message) as error:
        parse(["toy", *words])
    assert "\n" not in str(error.value)


def test_folders_of_cells_stay_inside_the_sweep(tmp_path):
    found = parse(["toy", "--grid", "scale=../../x,a b,a%b,..", "--out", str(tmp_path)])
    names = [cell.name for cell in found.cells]
    assert len(set(names)) == 4
    assert not any("/" in name or name in (".", "..") for name in names)


class StubRay(SimpleNamespace):
    """What a sweep uses of Ray, in this process."""

    def __init__(self):
        super().__init__(calls=[])

    def init(self, **options):
        self.calls.append(("init", options))

    def remote(self, **options):
        self.calls.append(("remote", options))

        def submit(work, *args):
            future = Future()
            try:
                future.set_result(work(*args))
            except RuntimeError as error:
                future.set_exception(error)
            return SimpleNamespace(future=lambda: future)

        return lambda work: SimpleNamespace(remote=lambda *args: submit(work, *args))

    def cancel(self, task):
        self.calls.append(("cancel", task))

    def wait(self, tasks, *, num_returns, timeout):
        assert timeout > 0
        return tasks[:num_returns], tasks[num_returns:]

    def shutdown(self):
        self.calls.append(("shutdown", {}))


def test_ray_runs_the_same_grid(tmp_path, monkeypatch):
    ray = StubRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    attempts = []

    def attempt(words, _):
        attempts.append(words)
        if len(attempts) == 1:
            raise RuntimeError("the worker died")
        return Outcome(entry.main(words[2:]), "")

    monkeypatch.setattr("experiments.sweeping.processes.attempt", attempt)
    words = ["toy", "--grid", "keep=0.25,0.5", "--out", str(tmp_path), "--quiet", "--gpus", "0.5"]
    carry_out(parse([*words, "--ray", "ray://head:10001"]), Console(quiet=True))
    assert [state for state, *_ in standing(tmp_path).values()] == ["done", "done"]
    assert len(attempts) == 3
    assert ray.calls[0][1]["address"] == "ray://head:10001"
    assert ray.calls[1] == ("remote", {"num_cpus": 1, "num_gpus": 0.5, "max_retries": 0})
    assert ray.calls[-1] == ("shutdown", {})


def test_ray_without_an_address_is_a_cluster_of_this_machine(tmp_path, monkeypatch):
    ray = StubRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr("experiments.sweeping.processes.attempt", lambda *_: Outcome(1, "no"))
    words = ["toy", "--ray", "--grid", "keep=0.5", "--out", str(tmp_path), "--retries", "0"]
    with pytest.raises(ValueError, match="1 of 1 cells failed"):
        carry_out(parse(words), Console(quiet=True))
    assert ray.calls[0][1]["address"] is None


def test_cells_share_the_cache_or_none_has_it(tmp_path):
    words = ["toy", "--grid", "keep=0.5", "--out", str(tmp_path)]
    (cell,) = parse(words).cells
    assert "--no-compilation-cache" not in cell.words(first=True)
    (cell,) = parse([*words, "--no-compilation-cache"]).cells
    assert "--no-compilation-cache" in cell.words(first=True)


def test_without_ray_the_error_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["sweep", "toy", "--grid", "keep=0.5", "--out", str(tmp_path), "--ray"]
    assert entry.main(words) == 2
    assert "the extra 'ray' brings it: pip install" in capsys.readouterr().err


def test_a_sweep_from_the_command_line_shows_its_cells(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("experiments.sweeping.Processes", lambda _: InProcess({"keep=0.5": 9}))
    words = ["sweep", "toy", "--grid", "keep=0.25,0.5", "--out", str(tmp_path), "--retries", "0"]
    assert entry.main(words) == 2
    told = capsys.readouterr()
    assert "keep=0.25: done (1 of 2 done)." in told.out
    assert "no luck" in told.out
    assert "1 of 2 cells failed" in told.err
    assert entry.main(["sweep", "--help"]) == 0
    assert "--grid" in capsys.readouterr().out


def test_a_record_that_does_not_belong_is_named_and_left_out(tmp_path):
    sweep(tmp_path, InProcess(), grid=("keep=0.25,0.5,1.0", "steps=3,4"))
    cells = {name: tmp_path / name for name in standing(tmp_path)}
    damaged, other, flagged, *_, gone = cells.values()
    (damaged / "metrics.npz").write_bytes(b"")
    write_record(other, *read_record(cells["keep=0.5,steps=3"]))
    record, curves = read_record(flagged)
    write_record(flagged, record | {"numerics": record["numerics"] | {"jax_x": "1"}}, curves)
    shutil.rmtree(gone)
    pool = InProcess()
    with pytest.raises(ValueError, match=r"sweep\.csv lacks 3 of 6 cells") as caught:
        sweep(tmp_path, pool, "--resume", grid=("keep=0.25,0.5,1.0", "steps=3,4"))
    assert pool.started == [gone.name, "stopped"]
    for part in ("metrics.npz is damaged", "keep is 0.5 there and 0.25 here", "jax_x is"):
        assert part in str(caught.value)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert len(rows) == 3 * 2 * 3
