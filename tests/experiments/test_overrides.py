# SPDX-License-Identifier: Apache-2.0
"""Settings in words: read as their type, refused in a line, and written so that they come back."""

import dataclasses
import shlex
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.command_line import parse, words
from experiments.overrides import alternatives, assignments, changed, differences, written


@dataclasses.dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)
    kind: Literal["a", "b"] = "a"


@dataclasses.dataclass(frozen=True)
class Config:
    count: int = 1
    rate: float = 0.5
    name: str = "x"
    on: bool = True
    limit: float | None = None
    inner: Inner = Inner()
    several: tuple[Inner, ...] = (Inner(), Inner(kind="b"))


def test_every_kind_of_field_is_read_as_its_type():
    texts = {
        "count": "3", "rate": "1e-3", "name": "y=z", "on": "false", "limit": "2",
        "inner.sizes": "4,5,6", "several.1.sizes": "", "several.0.kind": "b",
    }  # fmt: skip
    found = changed(Config(), texts)
    several = (Inner(kind="b"), Inner((), "b"))
    assert found == Config(3, 1e-3, "y=z", False, 2.0, Inner((4, 5, 6)), several)
    assert changed(found, {"limit": "None"}).limit is None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("count", "must be NAME=VALUE, got 'count'"),
        ("=3", "must be NAME=VALUE"),
        ("counts=3", "no setting 'counts'; there are count, rate"),
        ("count=3.5", "count must be a whole number, got '3.5'"),
        ("rate=fast", "rate must be a number, got 'fast'"),
        ("rate=nan", "rate must be finite, got nan"),
        ("on=perhaps", "on must be one of true, false, got 'perhaps'"),
        ("inner.kind=c", "inner.kind must be one of a, b, got 'c'"),
        ("inner=3", "inner cannot be set"),
        ("several.2.kind=a", "'2' must be a number from 0 to 1"),
        ("count.real=3", "no setting inside of 1, got 'real'"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_line(word, message):
    with pytest.raises(ValueError, match=message) as error:
        changed(Config(), assignments([word]))
    assert "\n" not in str(error.value)


@dataclasses.dataclass(frozen=True)
class Named:
    sizes: tuple = (("hidden", (8, 4)), ("depth", 2), ("stages", ((1,), (2,))))


def test_named_values_are_read_as_the_types_that_they_have():
    found = changed(Named(), {"sizes.hidden": "16,8,4", "sizes.depth": "3"})
    assert found.sizes == (("hidden", (16, 8, 4)), ("depth", 3), ("stages", ((1,), (2,))))
    assert differences(found, Named()) == {"sizes.hidden": (16, 8, 4), "sizes.depth": 3}
    assert alternatives(Named(), "sizes.hidden", "8,8;4") == ["8,8", "4"]
    for name, message in {
        "sizes.width": "no setting 'width'; there are hidden, depth, stages",
        "sizes.stages": "cannot be set",
        "sizes": "cannot be set",
    }.items():
        with pytest.raises(ValueError, match=message):
            changed(Named(), {name: "3"})


def test_settings_come_once():
    with pytest.raises(ValueError, match="count is set twice"):
        assignments(["count=1", "count=2"])


def test_alternatives_have_commas_and_lists_have_semicolons():
    assert alternatives(Config(), "count", "1, 2") == ["1", "2"]
    assert alternatives(Config(), "inner.sizes", "1,2;3") == ["1,2", "3"]
    for text in ("1,1", "1,", ""):
        with pytest.raises(ValueError, match="count must be"):
            alternatives(Config(), "count", text)


CONFIGS = st.builds(
    Config,
    st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(), st.booleans(), st.none() | st.floats(-1, 1),
    st.builds(Inner, st.lists(st.integers()).map(tuple), st.sampled_from("ab")),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(CONFIGS)
def test_what_is_written_is_read_as_the_same(config):
    texts = {name: written(value) for name, value in differences(config, Config()).items()}
    assert changed(Config(), texts) == config


NAMES = st.sampled_from(["count", "rate", "name", "on", "limit", "inner", "several", "sizes", "0"])


@settings(max_examples=80, deadline=None)
@given(st.lists(NAMES | st.text(max_size=2), max_size=4).map(".".join), st.text(max_size=5))
def test_any_words_are_read_or_refused_in_words(name, text):
    try:
        outcome = changed(Config(), assignments([f"{name}={text}"]))
    except ValueError as error:
        outcome = str(error)
    assert outcome


@pytest.mark.usefixtures("toy")
def test_set_reaches_fields_that_are_no_flags_and_is_recorded():
    command = parse(["toy", "--set", "steps=7", "scale=two words", "--keep", "0.25"])
    assert (command.config.steps, command.config.scale) == (7, "two words")
    assert words(command).endswith("--keep 0.25 --set steps=7 'scale=two words'")
    assert parse(shlex.split(words(command))[3:]) == command
    with pytest.raises(ValueError, match=r"keep must lie in \(0, 1\], got 3.0"):
        parse(["toy", "--set", "keep=3"])
