# SPDX-License-Identifier: Apache-2.0
"""The way from a command line to a paper's `run` is one that a newcomer can walk."""

import sys
from pathlib import Path

import pytest

import experiments
from experiments import __main__ as command_line
from experiments.matrix_sensing import run as paper

MOST_FUNCTIONS = 25
SHELL = Path(experiments.__file__).parent
# Tyro calls the rules of flags for each of hundreds of settings; a paper's own checks are its own.
APART = {"parsing.py", *experiments.EXPERIMENTS}


class Arrived(BaseException):
    """The paper's `run` was called."""


def _functions_on_the_way(words, goal):
    """Functions of the shared half that are entered before the paper's own, in order."""
    entered = {}

    def hear(frame, event, _):
        code = frame.f_code
        if event != "call" or SHELL not in (path := Path(code.co_filename)).parents:
            return
        if code is goal.__code__:
            raise Arrived
        place, is_body = path.relative_to(SHELL), "<" in code.co_qualname
        is_method = "self" in code.co_varnames[: code.co_argcount]
        owner = code.co_qualname.split(".")[0]
        found = getattr(sys.modules.get(f"experiments.{place.stem}"), owner, None)
        is_property = is_method and isinstance(getattr(found, code.co_name, None), property)
        if not (is_body or is_property or place.parts[0] in APART or code.co_name == "__init__"):
            entered[f"{place}:{code.co_qualname}"] = None

    sys.setprofile(hear)
    try:
        with pytest.raises(Arrived):
            command_line._main(words)  # Signals are listened to by now.
    finally:
        sys.setprofile(None)
    return list(entered)


def test_few_functions_lie_between_a_command_line_and_a_papers_run(tmp_path):
    words = ["matrix_sensing", "columns", "--preset", "quick", "--quiet"]
    walked = _functions_on_the_way([*words, "--out", str(tmp_path / "run")], paper.run)

    assert len(walked) <= MOST_FUNCTIONS, walked
    assert walked[0].startswith("__main__.py")
