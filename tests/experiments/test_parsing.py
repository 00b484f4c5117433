# SPDX-License-Identifier: Apache-2.0
"""Settings in words: read as their type, refused in a line, and written so that they come back."""

import dataclasses
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.cli import RunOptions, parse, words_of
from experiments.parsing import changed, flags, read, written


@dataclasses.dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)  # How many.
    kind: Literal["a", "b"] = "a"


@dataclasses.dataclass(frozen=True)
class Config:
    count: int = 1
    rate: float = 0.5  # How fast.
    name: str = "x"
    is_on: bool = True
    limit: float | None = None
    inner: Inner = Inner()
    several: tuple[Inner, ...] = (Inner(), Inner(kind="b"))
    named: tuple = (("hidden", (8, 4)), ("depth", 2), ("stages", ((1,), (2,))))


def parsed(*words, config=Config()):
    return read("program", "What it does.", words, RunOptions(), config)[1]


def words(config, default=Config()):
    """The words that make `config` of `default`."""
    usual = dict(flags(default))
    return [f"--{k}={written(v)}" for k, v in flags(config) if v != usual[k]]


def test_every_kind_of_field_is_read_as_its_type():
    found = parsed(
        "--count", "3", "--rate", "1e-3", "--name", "y=z", "--is-on", "False", "--limit", "2",
        "--inner.sizes", "4,5, 6", "--several.1.sizes", "", "--several.0.kind", "b",
        "--named.hidden", "16,8,4", "--named.depth", "3",
    )  # fmt: skip
    several = (Inner(kind="b"), Inner((), "b"))
    named = (("hidden", (16, 8, 4)), ("depth", 3), ("stages", ((1,), (2,))))
    assert found == Config(3, 1e-3, "y=z", False, 2.0, Inner((4, 5, 6)), several, named)
    assert parsed("--limit", "None", config=found).limit is None


@pytest.mark.parametrize(
    ("given_words", "message"),
    [
        ("--counts 3", "Unrecognized options: --counts"),
        ("--count 3.5", "--count: invalid literal"),
        ("--rate fast", "--rate: could not convert"),
        ("--rate nan", "--rate: it must be finite, got nan"),
        ("--limit -inf", "--limit"),
        ("--is-on perhaps", "--is-on"),
        ("--inner.kind c", "--inner.kind"),
        ("--inner 3", "Unrecognized options: --inner"),
        ("--several.2.kind a", "--several.2.kind"),
        ("--inner.sizes 1 2", "Unrecognized options: 2"),
        ("--named.width 3", "--named.width"),
        ("--named.stages 3", "fixed"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_line(given_words, message):
    with pytest.raises(ValueError, match=message) as error:
        parsed(*given_words.split())
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("see program --help.")


def test_comments_and_lists_are_in_the_help(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    shown = capsys.readouterr().out
    for part in ("--rate FLOAT", "How fast.", "(default: 0.5)", "--inner.sizes INT,...", "1,2"):
        assert part in shown


CONFIGS = st.builds(
    Config,
    st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text("abc=,- {}é"), st.booleans(), st.none() | st.floats(-1, 1),
    st.builds(Inner, st.lists(st.integers()).map(tuple), st.sampled_from("ab")),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(CONFIGS)
def test_what_is_written_is_read_as_the_same(config):
    assert parsed(*words(config)) == config


@settings(max_examples=40, deadline=None)
@given(CONFIGS)
def test_settings_are_changed_by_the_names_of_their_flags(config):
    assert changed(Config(), dict(flags(config))) == config


NAMES = st.sampled_from(["count", "rate", "name", "is-on", "limit", "inner", "several", "sizes"])


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES | st.text(max_size=2), max_size=4).map(".".join), st.text(max_size=5))
def test_any_words_are_read_or_refused_in_words(name, text):
    try:
        outcome = parsed(f"--{name}", text)
    except ValueError as error:
        outcome = str(error)
    except SystemExit as stop:
        outcome = "help" if not stop.code else ""
    assert outcome


@pytest.mark.usefixtures("toy")
def test_any_setting_is_a_flag_and_is_recorded():
    command = parse("toy", ["--steps", "7", "--scale", "two words", "--keep", "0.25"])
    assert (command.config.steps, command.config.scale) == (7, "two words")
    assert words_of(command).endswith("--steps 7 --keep 0.25 --scale 'two words'")
    with pytest.raises(ValueError, match=r"keep must lie in \(0, 1\], got 3.0"):
        parse("toy", ["--keep", "3"])
