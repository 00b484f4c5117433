# SPDX-License-Identifier: Apache-2.0
"""Several devices and several processes give what one device gives, and one process writes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import spread_runs
from spread_toy import run_until

import experiments.__main__ as entry
from experiments import sharding
from experiments.cli import RunOptions, parse
from experiments.sharding import Devices
from plprune.records import read_record

pytestmark = pytest.mark.usefixtures("toy")
HERE = Path(__file__).parent
ROOT = Path(entry.__file__).parents[1]


@pytest.fixture
def coordinator():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def program(stop, *flags):
    return started("spread_toy.py", stop, "--seeds", 2, *flags)


def started(file, *words):
    path = os.pathsep.join([str(ROOT), str(HERE)])
    return subprocess.Popen(
        [sys.executable, str(HERE / file), *map(str, words)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    try:
        told, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert "could not be saved" not in told
    return process.returncode, said[-3000:]


def test_two_processes_go_on_where_four_devices_stopped_and_equal_one_device(
    toy, tmp_path, coordinator
):
    toy("run", run=run_until(-1))
    words = ["toy", "--seeds", "2", "--quiet", "--out", str(tmp_path / "one")]
    assert entry.main(words) == 0

    code, said = ended(program(2, "--out", tmp_path / "four", "--devices", 4))
    assert code == 130, said
    assert len(list((tmp_path / "four" / "unfinished").glob("*.steps/[0-9]*"))) == 2

    flags = ("--devices", 4, "--distributed", "--coordinator", coordinator, "--processes", 2)
    both = [
        program(-1, "--resume", "--out", tmp_path / name, *flags, "--process", i)
        for i, name in enumerate(("four", "nowhere"))
    ]
    for code, said in map(ended, both):
        assert code == 0, said
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "four" / "unfinished").exists()

    (one, curves), (four, spread) = (read_record(tmp_path / name) for name in ("one", "four"))
    for name, curve in curves.items():
        np.testing.assert_allclose(spread[name], curve, rtol=1e-12, atol=1e-14)
    assert one["results"]["a"]["loss"]["mean"] == pytest.approx(
        four["results"]["a"]["loss"]["mean"], rel=1e-12
    )


def same(file, expected):
    """Whole numbers exactly: nodes kept, steps taken, broken bounds. The rest as float32 rounds."""
    with np.load(file, allow_pickle=False) as found:
        assert set(found.files) == set(expected)
        for name, values in expected.items():
            rtol = 0 if np.array_equal(values, np.round(values), equal_nan=True) else 1e-5
            # Shares of a grid of pairs, which change where the pair does.
            atol = 1e-3 if name.endswith("heat") else 1e-12
            np.testing.assert_allclose(found[name], values, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.slow
def test_experiments_on_four_devices_are_those_of_one(tmp_path):
    four = started("spread_runs.py", tmp_path / "four.npz", 4)
    expected = spread_runs.everything()
    code, said = ended(four)
    assert code == 0, said
    same(tmp_path / "four.npz", expected)


def test_what_process_0_finds_or_refuses_every_process_hears(monkeypatch):
    sent = []

    def broadcast(content, **_):
        sent.append(content)
        return sent[0]  # Process 0 came first.

    monkeypatch.setattr("experiments.sharding._broadcast", broadcast)

    def refuse():
        raise OSError(28, "No space left on device")

    for work, outcome in ((lambda: b"found", b"found"), (refuse, None)):
        sent.clear()
        for process in (0, 1):
            devices = Devices(4, processes=2, process=process)
            assert devices.writes == (process == 0)
            mine = work if process == 0 else lambda: pytest.fail("process 0 alone looks")
            if outcome is None:
                with pytest.raises((OSError, ValueError), match="No space left"):
                    devices.shared(mine)
            else:
                assert devices.shared(mine) == outcome


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--devices 0", r"devices must lie in \[1, 1048576\], got 0"),
        ("--processes 2", "need --distributed"),
        ("--distributed --process 1", "need --coordinator"),
        ("--distributed --coordinator here --processes 2 --process 0", "HOST:PORT, got 'here'"),
        ("--distributed --coordinator h:99999 --processes 2 --process 0", "HOST:PORT"),
        ("--distributed --coordinator h:1", "needs --processes and --process"),
        ("--distributed --coordinator h:1 --processes 2 --process 2", r"lie in \[0, 2\), got 2"),
    ],
)
def test_machines_that_cannot_be_are_refused_in_a_line(words, message):
    with pytest.raises(ValueError, match=message):
        parse("toy", words.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("matrix_sensing --devices 4", "matrix_sensing all has nothing large enough"),
        ("matrix_sensing columns --distributed", "columns has nothing large enough to spread"),
        (
            "pl_star surface --devices 2",
            "surface has nothing .* rate, radius, jacobian, almost have",
        ),
        ("alpha_beta examples --devices 2", "examples has nothing"),
    ],
)
def test_figures_without_anything_to_spread_say_so_before_any_work(words, message):
    with pytest.raises(ValueError, match=message) as error:
        parse(words.split()[0], words.split()[1:])
    assert "\n" not in str(error.value)


def test_figures_with_something_to_spread_are_taken():
    assert parse("pl_star", ["--devices", "2"]).options.are_several
    assert not parse("matrix_sensing", ["--devices", "1"]).options.are_several


def test_devices_that_divide_no_batch_are_refused(monkeypatch):
    sharding.check_divide({"batch_size": 7})
    monkeypatch.setattr("experiments.sharding.count", lambda: 4)
    sharding.check_divide({"batch_size": 7, "other": 8})
    with pytest.raises(ValueError, match="devices must divide batch_size, which is 7, got 4"):
        sharding.check_divide({"batch_size": 7, "other": 6})


def test_more_devices_than_there_are_are_refused(tmp_path, capsys):
    import jax

    count = len(jax.devices())  # From here on the processor stands for no more of them.
    assert entry.main(["toy", "--out", str(tmp_path), "--devices", str(count + 3)]) == 2
    assert f"at most the {count} there are, got {count + 3}" in capsys.readouterr().err


def test_on_one_device_nothing_is_spread():
    tree = {"x": np.ones((4, 2))}
    with sharding.joined(RunOptions()) as devices:
        assert (devices.count, sharding.count(), devices.writes) == (1, 1, True)
        for place in (sharding.spread, sharding.replicate, sharding.divided, sharding.whole):
            assert place(tree) is tree
    assert devices.shared(lambda: b"x") == b"x"


def test_the_mesh_is_left_behind_and_what_was_compiled_for_it_is_not_used():
    assert len(jax.devices()) >= 1
    traced = []

    @jax.jit
    def function(x):
        traced.append(sharding.count())
        return sharding.whole(sharding.divided(x))

    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    for _ in range(2):
        function(np.ones(4))
        with jax.set_mesh(mesh):
            function(np.ones(4))
    assert traced == [1, 1]
