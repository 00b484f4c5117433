# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run at tiny sizes, say what they skip, and report what failed."""

import math
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import plprune
from benchmarks import accelerator, first_number, problems
from benchmarks.contestants import large_checkpoint
from benchmarks.public import decoders
from benchmarks.race import Contestant, run
from benchmarks.workloads import Work

ROOT = Path(plprune.__file__).parents[1]


def rows(table):
    """Cells of each line of a markdown table, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_the_accelerators_rows_run_as_a_file_and_agree(tmp_path):
    script = [sys.executable, ROOT / "benchmarks" / "accelerator.py"]
    options = ["--sizes", "tiny", "--repeats", "2"]
    done = subprocess.run([*script, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout.splitlines()[0] for name in ("jax", "plprune", "tiny"))
    found = rows(done.stdout)
    assert [row[0] for row in found if row[0]] == [w.title for w in accelerator.SIZES["tiny"]]
    for row in found:
        assert all(float(cell.replace(",", "")) > 0 for cell in row[2:5]), row
    differences = [float(row[5].split()[-1]) for row in found if row[5].startswith("differs")]
    assert len(differences) >= 4  # Two kernels, one of a Flax model, dense ends.
    assert max(differences) < 1e-5


def test_both_sizes_have_the_same_tables():
    tables = [{work.table for work in works} for works in accelerator.SIZES.values()]
    assert tables[0] == tables[1] == set(accelerator.TABLES)


def of(calls, *, seconds=0.0, compares=False):
    return Work("kernels", "a work", seconds, lambda: calls, compares)


def broken():
    raise ValueError("out of memory\nand more")


def test_a_row_that_would_outlast_the_budget_is_skipped(capsys):
    assert accelerator.run([of({"plprune": broken}, seconds=2)], 1, 1.0) == 0
    ((title, *_, remark),) = rows("|\n|\n" + capsys.readouterr().out)
    assert (title, remark) == ("a work", "skipped: takes about 2 s, 1 s left")


def test_only_a_failure_of_ours_is_one_of_the_command(capsys):
    assert accelerator.run([of({"plprune": lambda: jnp.ones(2), "peer": broken})], 1, 9.0) == 0
    assert accelerator.run([of({"plprune, plain": broken})], 1, 9.0) == 1
    assert capsys.readouterr().out.count("failed: ValueError: out of memory |") == 2


def test_what_still_runs_at_the_end_of_the_budget_is_given_up(monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(accelerator.os, "_exit", ended.append)
    works = [of({"plprune": lambda: time.sleep(0.3)}), of({"plprune": lambda: jnp.ones(1)})]
    accelerator.run(works, 1, 0.1)
    assert ended == [0]
    first, second = rows("|\n|\n" + capsys.readouterr().out)[:2]
    assert first[-1] == "given up: not ready when 0 s were over"
    assert second[-1] == "skipped: no time left"


def test_differences_and_ratios_are_those_of_the_first_line(capsys):
    calls = {"plprune": lambda: np.array([1.0, 4.0]), "peer": lambda: np.array([1.0, 4.4])}
    accelerator.run([of(calls, compares=True)], 3, 9.0)
    ours, peer = rows("|\n|\n" + capsys.readouterr().out)
    assert (ours[4], ours[5], peer[0]) == ("1.00", "", "")
    assert peer[5] == "differs by 1e-01"


@pytest.mark.parametrize(("number", "text"), [(0.0123, "0.0123"), (2.5, "2.50"), (1234.5, "1,234")])
def test_numbers_have_three_digits(number, text):
    assert accelerator.digits(number) == text


def test_a_kernel_is_timed_in_fresh_processes_with_a_cold_and_a_warm_cache(capsys):
    lines = {"kernel": Contestant("ours", "first_number", "mlp:kernel")}
    lines["torch"] = Contestant("gone", "no_such_program", "mlp:kernel")
    first_number.table("tiny", lines, lambda: problems.mlp((5, 4, 3), 4), 1)
    _, title, heads, ours, gone = capsys.readouterr().out.splitlines()
    assert title == "tiny"
    assert heads.split() == ["first,", "cold", "x", "jacrev", "warm", "second"]
    name, cold, warm, second = ours.split()
    assert name == "ours"
    assert all(math.isfinite(float(cell.rstrip("ms"))) for cell in (cold, warm, second))
    assert "skipped" in gone


def test_later_plain_calls_are_counted_and_compared():
    contestant = Contestant("", "plain_calls", "tangent_kernel")
    numbers, _, reason = run(contestant, problems.mlp((5, 4, 3), 4), 2)
    assert not reason
    assert numbers["compilations"] == {"same": 0, "again": 0, "moved": 0}
    assert numbers["first"] > numbers["plain"]
    assert numbers["jitted"] > 0


def test_tables_have_names():
    assert set(first_number.TABLES) == {
        "readme", "mlp", "cnn", "resnet20", "transformer", "calls",
    }  # fmt: skip


def test_the_large_checkpoint_is_cut_alike_when_it_is_small(tmp_path):
    assert large_checkpoint.save(tmp_path, 1 / 64)["bytes"] > 9e5
    done = large_checkpoint.cut(tmp_path, 1 / 64)
    assert 0.45 < done["bytes_after"] / done["bytes_before"] < 0.55
    assert large_checkpoint.compare(tmp_path, 1 / 64) == {"same": True}


def test_decoders_of_tunix_are_skipped_by_name_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.delitem(sys.modules, "tunix", raising=False)
    with pytest.raises(ModuleNotFoundError, match="tunix is not installed"):
        decoders.llama()
