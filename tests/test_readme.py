# SPDX-License-Identifier: Apache-2.0
"""The README's code runs as it stands."""

import re
from pathlib import Path

import jax
import pytest

README = Path(__file__).parents[1] / "README.md"


def measured(text):
    """The numbers of a printed `measure`, by name."""
    rows = re.findall(r"^ *(.+?) +(\S+) ± \S+$", text, re.MULTILINE)
    return {name: float(value) for name, value in rows}


@pytest.mark.usefixtures("models_broadcast")
def test_code_blocks_run_in_order_and_print_what_stands_below_them(capsys):
    text = README.read_text(encoding="utf-8")
    names: dict = {}
    with jax.enable_x64(False):  # As readers have it; the draws are others in float64.
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(block, str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert len(measured(text)) == 5
    assert measured(printed) == pytest.approx(measured(text), rel=1e-3)
    for row in ("parameters          26,122     8,970", "hidden_0  64 of 128 neurons"):
        assert row in printed
        assert row in text
    assert "hidden_0.bias" in printed  # The table of groups.
    assert sum(int(kept.sum()) for kept in names["keep"].values()) == 128
    masked = names["apply"](names["params"], names["inputs"])
    shrunk = names["small_apply"](names["small"], names["inputs"])
    assert jax.numpy.allclose(masked, shrunk, atol=1e-5)


def test_it_fits_one_page():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120
