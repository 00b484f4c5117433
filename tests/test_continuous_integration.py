# SPDX-License-Identifier: Apache-2.0
"""What `.ci/newest` says of a machine without a newer Python, or without a package index."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "newest"
TOOLS = ("bash", "cp", "dirname", "grep", "mkdir", "mktemp", "rm", "tail", "tr")
# It has a venv module, makes environments, and in them pip and whatever runs end as is said.
PYTHON = """#!/usr/bin/env bash
case "$*" in
  *ensurepip*) exit 0 ;;
  -V) echo Python 3.12.9 ;;
  "-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  *"pip install"*) echo "ERROR: no index"; exit {pip} ;;
  *"pip list"*) echo jax==0.12.0 ;;
  *) exit {program} ;;
esac
"""


@pytest.mark.parametrize(
    ("python", "code", "said"),
    [
        (None, 0, "no Python 3.12 or newer is here; only the pins"),
        (PYTHON.format(pip=1, program=0), 0, "NOT TESTED on Python 3.12.9: .*ERROR: no index"),
        (PYTHON.format(pip=0, program=0), 0, "jax==0.12.0 .*measures, prunes and names"),
        (PYTHON.format(pip=0, program=1), 1, "jax==0.12.0"),
    ],
    ids=["no python", "no index", "all well", "a fault"],
)
def test_the_newest_is_tested_or_that_it_is_not_is_said(tmp_path, python, code, said):
    for tool in TOOLS:
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    if python:
        (tmp_path / "python3.12").write_text(python)
        (tmp_path / "python3.12").chmod(0o755)
    environment = {"PATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [tmp_path / "bash", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    pattern = said.replace(".*", "\0").split("\0")
    assert all(part in done.stdout for part in pattern)
    assert ("measures" in done.stdout) == ("measures" in said)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # Nothing is left behind.
    assert os.access(SCRIPT, os.X_OK)
