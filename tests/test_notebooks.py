# SPDX-License-Identifier: Apache-2.0
"""Every notebook runs from top to bottom, opens in Colab, and holds no outputs."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
BADGE = "https://colab.research.google.com/github/{}/blob/main/notebooks/{}.ipynb"
pytestmark = pytest.mark.usefixtures("models_broadcast")


def cells(name, kind):
    found = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def run(name):
    names: dict = {}
    with matplotlib.rc_context({"backend": "agg"}):
        for number, source in enumerate(cells(name, "code")):
            exec(compile(source, f"{name}.ipynb, cell {number}", "exec"), names)
    return names


def test_quickstart_measures_a_model(capsys):
    names = run("quickstart")
    assert all(names[name].resolved for name in ("mu", "kappa", "smoothness", "frozen"))
    assert 0 < names["contraction"] < 1
    assert set(names["traces"]) == {f"{n}.{k}" for n in ("hidden", "readout") for k in
                                    ("kernel", "bias")}  # fmt: skip
    lines = cells("quickstart", "code")[2].splitlines()
    assert sum("plprune." in line for line in lines) == 3
    assert "resolved: True" in capsys.readouterr().out


def test_pruning_closes_shrinks_trains_saves_and_loads(capsys):
    names = run("pruning")
    assert names["difference"] < 1e-5
    assert names["parameters"](names["small"]) < names["parameters"](names["params"]) / 2
    assert names["values"][-1] < names["values"][0] / 4
    assert names["reached"] > 0.8
    assert names["same"]
    trained = names["small_apply"](names["small"], names["probe"])
    assert jnp.array_equal(names["again"], trained)
    native = names["native"](names["probe"])
    assert native.shape == trained.shape
    assert "among the largest" in capsys.readouterr().out


def test_batch_norm_goes_from_a_model_to_a_smaller_one_elsewhere():
    names = run("batch_norm")
    assert names["difference"] < 1e-5
    assert {name: int(kept.sum()) for name, kept in names["keep"].items()} == {
        "Conv_0": 4, "Conv_1": 8
    }  # fmt: skip
    assert int(names["small"].step) == 140
    assert min(names["reached"].values()) > 0.8
    assert abs(names["elsewhere"] - names["reached"]["average"]) < 1e-6


def test_alpha_beta_replays_and_finds_a_pair_that_held():
    names = run("alpha_beta")
    assert names["found"].exact
    pair, (inner, gap, excess) = names["pair"], names["points"]
    assert pair.alpha >= pair.beta + 0.1 - 1e-9
    margins = inner - pair.alpha * gap + pair.beta * excess
    assert margins.min() >= -1e-5 * jnp.abs(inner).max()
    assert len(names["axes"].lines) == 3
    names["plt"].close(names["figure"])


def test_pl_star_bears_out_its_claims():
    names = run("pl_star")
    assert all(names[name].resolved for name in ("mu", "smoothness", "kappa"))
    assert names["spectrum"][0] <= names["ratio"] <= names["spectrum"][-1]
    assert not names["certificate"].certified
    assert names["taken"] < names["steps"]
    assert names["loss"](names["trained"], (names["inputs"], names["targets"])) <= 1e-3
    assert names["moved"] < names["bounds"].path
    assert len(names["axes"].lines) == 3
    assert names["certificate"].binding == "Hessian norm"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.ipynb")))
def test_opens_in_colab(name):
    """A badge that leads to itself, an install cell before anything of ours, no local path."""
    first, code = cells(name, "markdown")[0], cells(name, "code")
    (address,) = re.findall(r"github\.com/([\w./-]+)", code[0])
    assert BADGE.format(address, name) in first
    assert address in (FOLDER.parent / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert '"pip", "install"' in code[0]
    assert not re.search(r"^(import|from) plprune", code[0], re.MULTILINE)
    assert not re.search(r"""["'](/|\.\./|~)""", "".join(code))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_holds_no_outputs(path):
    """Outputs would be stored numbers, stale after the next change."""
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["nbformat"] == 4
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in found["cells"])
