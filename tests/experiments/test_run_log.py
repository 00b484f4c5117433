# SPDX-License-Identifier: Apache-2.0
"""The log and the event files: what was told, whole lines, and never in the way of the run."""

import io
import json
import math
import os
from contextlib import suppress

import numpy as np
import pytest

import experiments.__main__ as entry
from experiments.progress import Progress
from experiments.run_log import Log, logged, memory, profiled, spent
from plprune.records import read_record


def main(*words):
    return entry.main([str(word) for word in words])


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def events(folder):
    """(run, tag, step, value) of every event file, by TensorBoard's own format."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((folder / "tensorboard").rglob("events*")):
        file = io.BytesIO(path.read_bytes())
        run = path.parent.relative_to(folder / "tensorboard").as_posix()
        while head := file.read(12):
            event = Event()
            event.ParseFromString(file.read(int.from_bytes(head[:8], "little")))
            file.read(4)
            values = event.summary.value
            found += [(run, value.tag, event.step, value.simple_value) for value in values]
    return found


@pytest.mark.usefixtures("toy")
def test_a_run_leaves_its_log_and_its_numbers(tmp_path):
    assert main("toy", "--out", tmp_path, "--quiet") == 0
    found = lines(tmp_path)
    assert (found[0]["what"], found[-1]["what"], found[-1]["how"]) == ("begin", "end", "done")
    assert found[0]["command"] == "python -m experiments toy --preset quick"
    assert found[-1]["peak_bytes"] > 1e7
    steps = [line for line in found if line["what"] == "step" and line["task"] == "gd/kappa"]
    losses = read_record(tmp_path)[1]["gd/kappa/train_loss"][:, -1]
    assert [line["loss"] for line in steps] == losses.tolist()
    assert [line["step"] for line in steps] == [1, 2, 3]
    told = [event[1:] for event in events(tmp_path) if event[0] == "gd/kappa"]
    assert told == [("loss", i + 1, np.float32(loss)) for i, loss in enumerate(losses)]
    assert {event[0] for event in events(tmp_path)} == {"gd/dense", "gd/kappa"}


def test_a_resumed_run_goes_on_in_the_log_and_a_new_one_begins_it(toy, tmp_path):
    def interrupted(_, *, progress):
        progress.once("a", lambda: {"x": 1})
        raise KeyboardInterrupt

    toy("run", run=interrupted)
    assert main("toy", "--out", tmp_path, "--quiet") == 130
    toy("run", run=toy.run)
    assert main("toy", "--out", tmp_path, "--quiet", "--resume") == 0
    ends = [line["how"] for line in lines(tmp_path) if line["what"] == "end"]
    assert ends == ["interrupted", "done"]
    assert main("toy", "--out", tmp_path, "--quiet", "--overwrite") == 0
    assert [line["how"] for line in lines(tmp_path) if line["what"] == "end"] == ["done"]


def test_what_goes_wrong_is_in_the_log(toy, tmp_path):
    def diverging(_, *, progress):
        progress.carry("a", 0.0, 4, lambda state, _: (state, {"loss": np.array([math.nan])}))

    toy("run", run=diverging)
    assert main("toy", "--out", tmp_path, "--quiet") == 2
    assert "a diverged: loss is nan at step 0" in lines(tmp_path)[-1]["how"]


def test_numbers_that_json_lacks_are_null(tmp_path):
    with logged(tmp_path, {}) as log, log.task("a", total=2) as task:
        task.advance(1, x=math.inf, y=np.float32(math.nan), z=np.float32(0.5))
    (step,) = [line for line in lines(tmp_path) if line["what"] == "step"]
    assert (step["x"], step["y"], step["z"]) == (None, None, 0.5)
    assert [(run, tag) for run, tag, *_ in events(tmp_path)] == [("a", "x"), ("a", "y"), ("a", "z")]


def test_a_method_on_a_seed_is_a_run_with_the_tags_of_all_others(tmp_path):
    with logged(tmp_path, {}) as log:
        for seed in (0, 1):
            for method in ("[kappa]", "dense@0.5"):
                with log.task(f"gd/{method}, seed {seed}", total=1) as task:
                    task.advance(5, loss=seed)
    assert events(tmp_path) == [
        ("gd/_kappa_seed_0", "loss", 5, 0.0), ("gd/_kappa_seed_1", "loss", 5, 1.0),
        ("gd/dense@0.5_seed_0", "loss", 5, 0.0), ("gd/dense@0.5_seed_1", "loss", 5, 1.0),
    ]  # fmt: skip


def test_names_of_tasks_lead_out_of_no_folder(tmp_path):
    with logged(tmp_path / "run", {}) as log, log.task("../../a/..", total=1) as task:
        task.advance(1, loss=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_log_that_cannot_be_written_does_not_stop_the_run(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    (tmp_path / "tensorboard").write_text("")
    log = Log(tmp_path)
    with log.task("a", total=1) as task:
        task.advance(1, loss=1.0)
    log.close()
    if os.path.exists("/dev/full"):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "log.jsonl").symlink_to("/dev/full")
        log = Log(tmp_path / "full")
        log.write("a")
        log.close()


def test_logging_changes_no_result(tmp_path):
    with logged(tmp_path, {}) as log:
        progress = Progress(None, log)
        assert progress.once("a", lambda: {"x": 1})["x"] == 1
        end, infos = progress.carry(
            "b", 0, 10, lambda s, rows: (s + len(rows), {"n": np.array(rows)}), every=3
        )
    assert int(end) == 10
    assert infos["n"].tolist() == list(range(10))


def test_a_profile_is_written(tmp_path):
    import jax.numpy as jnp

    with suppress(KeyboardInterrupt), profiled(tmp_path):
        jnp.sum(jnp.ones(3)).block_until_ready()
        raise KeyboardInterrupt
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_time_and_memory_are_told():
    assert memory()["peak_bytes"] > 1e7
    assert spent(1234.5).startswith("Done in 1,234.5 s, with at most ")
    assert "MiB of memory" in spent(0)
