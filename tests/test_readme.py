# SPDX-License-Identifier: Apache-2.0
"""The README's code runs as it stands."""

import re
from pathlib import Path

import jax
import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.usefixtures("models_broadcast")
def test_code_blocks_run_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["kappa"].resolved
    kept = sum(int(k.sum()) for k in names["keep"].values())
    assert kept == 128
    masked = names["apply"](names["params"], names["inputs"])
    shrunk = names["small_apply"](names["small"], names["inputs"])
    assert jax.numpy.allclose(masked, shrunk, atol=1e-5)
    assert "hidden_0" in capsys.readouterr().out
