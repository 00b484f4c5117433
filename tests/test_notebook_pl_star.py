# SPDX-License-Identifier: Apache-2.0
"""The notebook on PL constants and certificates runs from top to bottom, as its text says."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "pl_star.ipynb"
pytestmark = pytest.mark.usefixtures("models_broadcast")


def test_runs_and_bears_out_its_claims():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["source"]]
    names = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert all(names[name].resolved for name in ("mu", "smoothness", "kappa"))
    assert names["spectrum"][0] <= names["ratio"] <= names["spectrum"][-1]
    assert not names["certificate"].certified
    assert names["taken"] < names["steps"]
    assert names["loss"](names["trained"], (names["inputs"], names["targets"])) <= 1e-3
    assert names["moved"] < names["bounds"].path
    assert len(names["axes"].lines) == 3
    assert names["certificate"].binding == "Hessian norm"


def test_holds_no_outputs():
    """Outputs would be stored numbers, stale after the next change."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)
