# SPDX-License-Identifier: Apache-2.0
"""What `from plprune import ...` offers, and what importing it costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import plprune


@pytest.mark.parametrize("name", plprune.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(plprune, name).__doc__
    assert name in dir(plprune)


def test_every_module_is_an_attribute():
    files = {path.stem for path in Path(plprune.__file__).parent.iterdir()}
    assert set(plprune._MODULES) <= files
    for name in plprune._MODULES:
        assert getattr(plprune, name).__name__ == f"plprune.{name}"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'tangent'"):
        plprune.tangent  # noqa: B018


def test_importing_costs_neither_jax_nor_flax():
    code = "import plprune, sys; print({'jax', 'flax', 'orbax'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_measuring_costs_no_flax():
    code = (
        "import plprune, sys; plprune.measure, plprune.tangent_kernel; print('flax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
