# SPDX-License-Identifier: Apache-2.0
"""`python -m plprune.shrink`, which cuts a checkpoint of a model that a function of yours names."""

import importlib
import runpy
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import plprune
from plprune.storage.command import main
from tests.storage.reading import restored, save

MODEL = """
import jax
import jax.numpy as jnp

shape = jax.ShapeDtypeStruct

def model():
    apply = lambda params, inputs: jnp.tanh(inputs @ params["up"]) @ params["down"]
    params = {"up": shape((4, 6), "float32"), "down": shape((6, 2), "float32")}
    return apply, params, shape((2, 4), "float32")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_model_of_a_test.py").write_text(MODEL)
    save(tmp_path / "saved", {"up": jnp.ones((4, 6)), "down": jnp.ones((6, 2))})
    np.savez(tmp_path / "keep.npz", up=np.arange(6) < 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ARGUMENTS = ["saved", "small", "--model", "my_model_of_a_test:model", "--keep", "keep.npz"]


def test_a_checkpoint_is_cut(folder, capsys):
    assert main(ARGUMENTS) == 0
    assert "2 of 2 arrays cut" in capsys.readouterr().out
    assert restored(folder / "small")["up"].shape == (4, 2)


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (0, "none", "no checkpoint none"),
        (1, "saved", "must not lie in the source"),
        (3, "my_model_of_a_test", "must be MODULE:FUNCTION"),
        (3, "my_model_of_a_test:shape_of", "no function of"),
        (3, "no_such_module:model", "no_such_module"),
        (5, "none.npz", "none.npz"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_bad_input_is_one_line_and_2(capsys, place, value, text):
    arguments = [value if k == place else word for k, word in enumerate(ARGUMENTS)]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line


def test_the_file_runs_and_never_stands_in_for_the_function(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["shrink", "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module("plprune.shrink", run_name="__main__")
    assert done.value.code == 0
    assert "keep.npz" in capsys.readouterr().out
    assert importlib.import_module("plprune.shrink") is plprune.shrink is plprune.nodes.shrink
