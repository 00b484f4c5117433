# SPDX-License-Identifier: Apache-2.0
"""Every notebook runs from top to bottom, and prints what stands in it but for the numbers."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
COLOUR, NUMBER = re.compile(r"\x1b\[[\d;]*m"), re.compile(r"0x[\da-f]+|-?\d[\d.,]*(e[-+]?\d+)?")
pytestmark = pytest.mark.usefixtures("models_broadcast")


def cells(name, kind):
    found = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def printed(cell):
    shown = [output for output in cell["outputs"] if output.get("name") == "stdout"]
    return "".join("".join(output["text"]) for output in shown)


def without_numbers(text):
    return NUMBER.sub("#", " ".join(COLOUR.sub("", text).split()))


def run(name):
    names: dict = {}
    with matplotlib.rc_context({"backend": "agg"}):
        for number, cell in enumerate(cells(name, "code")):
            with redirect_stdout(io.StringIO()) as told:
                exec(compile(source(cell), f"{name}.ipynb, cell {number}", "exec"), names)
            assert without_numbers(told.getvalue()) == without_numbers(printed(cell)), number
    return names


def test_quickstart_measures_a_model():
    names = run("quickstart")
    assert all(names[name].resolved for name in ("mu", "kappa", "smoothness", "frozen"))
    assert 0 < names["contraction"] < 1
    assert set(names["traces"]) == {f"{n}.{k}" for n in ("hidden", "readout") for k in
                                    ("kernel", "bias")}  # fmt: skip
    lines = source(cells("quickstart", "code")[1]).splitlines()
    assert sum("plprune." in line for line in lines) == 3


def test_pruning_closes_shrinks_trains_saves_and_loads():
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


def test_pl_star_bears_out_its_claims():
    names = run("pl_star")
    assert all(names[name].resolved for name in ("mu", "smoothness", "kappa"))
    assert names["spectrum"][0] <= names["ratio"] <= names["spectrum"][-1]
    assert not names["certificate"].certified
    assert names["taken"] < names["steps"]
    assert names["loss"](names["trained"], (names["inputs"], names["targets"])) <= 1e-3
    assert names["moved"] < names["bounds"].path
    assert len(names["axes"].lines) == 3
    names["plt"].close(names["figure"])
    assert names["certificate"].binding == "Hessian norm"


def test_language_model_loses_heads_neurons_and_experts():
    names = run("language_model")
    kept = {name: (int(mask.sum()), len(mask)) for name, mask in names["keep"].items()}
    assert kept == {"block_0.attention": (2, 4), "block_0.mlp": (16, 32)}
    assert {name: int(mask.sum()) for name, mask in names["half"].keep.items()}[
        "block_0.mlp.router"
    ] == 2
    assert names["then"][-1] < names["first"][0] / 2
    assert names["before"] < 32


@pytest.mark.parametrize("name", NAMES)
def test_holds_what_a_run_from_top_to_bottom_gave(name):
    code = cells(name, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not re.search(r"""["'](/|\.\./|~)""", "".join(map(source, code)))
    assert "OWNER_NAME" not in (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")


def test_every_notebook_is_listed():
    listed = (FOLDER.parent / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert all(f"notebooks/{name}.ipynb" in listed for name in NAMES)
