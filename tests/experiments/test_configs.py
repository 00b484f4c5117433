# SPDX-License-Identifier: Apache-2.0
"""What the settings of every experiment hold to."""

import importlib
import subprocess
import sys

import pytest

from experiments import EXPERIMENTS

NAMES = [f"{package}.config" for package in EXPERIMENTS.values()]
SETTINGS = {name: importlib.import_module(name) for name in NAMES}


@pytest.mark.parametrize(
    ("name", "preset"),
    [(name, preset) for name, settings in SETTINGS.items() for preset in settings.PRESETS],
)
def test_presets_pass_their_own_check(name, preset):
    SETTINGS[name].check(SETTINGS[name].PRESETS[preset])


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_says_what_it_shows_and_in_how_many_minutes(name):
    module = SETTINGS[name]
    assert module.ABOUT.keys() == module.PRESETS.keys()
    for about in module.ABOUT.values():
        assert about.claim
        assert about.minutes is None or about.minutes > 0


def test_settings_import_no_jax():
    code = f"import sys, {', '.join(NAMES)}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
