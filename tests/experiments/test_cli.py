# SPDX-License-Identifier: Apache-2.0
"""Flags: whatever is typed is understood or refused in one line, and comes back as it went."""

import shlex
import sys
from importlib import import_module

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import __main__
from experiments.cli import parse, parse_arguments, presets, words_of

pytestmark = pytest.mark.usefixtures("toy")

WORDS = st.sampled_from(
    ["--preset", "--keep", "--methods", "--seed", "--seeds", "--out", "--resume", "--quiet",
     "--overwrite", "quick", "large", "dense,kappa", "0.5", "-1", "nan", "1e999", "", "--", "-x",
     "--keep=0.25", "--methods=", "--seeds=1_0", "[/red]", "%s", "{x}", "--no-resume", "\n"]
) | st.text(max_size=4)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(WORDS, max_size=5))
def test_any_words_give_a_command_or_one_line(argv):
    try:
        outcome = parse("toy", argv)
    except ValueError as error:
        outcome = str(error).strip()
    except SystemExit as stop:
        outcome = "help" if not stop.code else ""
    assert outcome


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["quick", "large"]),
    st.integers(0, 2**31 - 1),
    st.integers(1, 50),
    st.floats(0, 1, exclude_min=True),
    st.permutations(["dense", "kappa", "random"]),
)
def test_the_words_of_a_command_are_parsed_into_the_same_command(preset, seed, seeds, keep, names):
    argv = ["--preset", preset, "--seed", seed, "--seeds", seeds, "--keep", keep]
    command = parse("toy", [*map(str, argv), "--methods", ",".join(names)])
    found = (command.config.seed, command.config.seeds, command.config.keep)
    assert found == (seed, seeds, keep)
    assert command.config.methods == tuple(names)
    assert parse("toy", shlex.split(words_of(command))[4:]) == command


def test_without_a_preset_the_default_one_runs(toy):
    assert parse("toy", []).options.preset == "quick"
    toy("config", DEFAULT="large")
    assert parse("toy", []) == parse("toy", ["--preset", "large"])
    assert parse("pl_pruning", []).options.preset == "digits"


def test_presets_are_listed_with_minutes_data_and_claim():
    told = presets("toy")
    assert "quick (about 0.1 min)\n    Little." in told
    assert "large (about 90 min, needs the moon)\n    Much.\n    Expected: 7 of 8." in told


def test_a_complaint_is_one_line_that_names_flag_and_help():
    with pytest.raises(ValueError, match=r"--seeds.*see python -m experiments toy --help\.$") as e:
        parse("toy", ["--seeds", "two"])
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="path"):
        parse_arguments("report", ["path"], [])
    with pytest.raises(ValueError, match="got a b"):
        parse_arguments("report", ["path"], ["a", "b"])


@pytest.mark.parametrize(
    ("module", "extra"),
    [("rich", "experiments"), ("matplotlib", "pictures"), ("jinja2", "experiments")],
)
def test_a_missing_extra_is_named_with_what_installs_it(module, extra, monkeypatch, capsys):
    def carried_out(*_):
        monkeypatch.setitem(sys.modules, module, None)
        import_module(module)

    monkeypatch.setattr(__main__, "_carry_out", carried_out)
    assert __main__.main(["toy"]) == __main__.BAD_INPUT
    told = capsys.readouterr().err
    assert f"{module} is not installed; the extra {extra!r} brings it: pip install" in told


def test_any_other_missing_module_is_an_error_of_the_program(monkeypatch, capsys):
    monkeypatch.setattr(__main__, "_carry_out", lambda *_: import_module("no_such_module"))
    assert __main__.main(["toy"]) == __main__.FAULT
    assert "no_such_module" in capsys.readouterr().err
