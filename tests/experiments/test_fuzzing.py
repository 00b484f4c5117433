# SPDX-License-Identifier: Apache-2.0
"""Whatever a record, a saved model or a configuration holds is taken, or refused in words."""

import copy
import hashlib
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import experiments
from experiments.cli import parse
from experiments.cli import settings as settings_of
from experiments.parsing import flags, written
from experiments.report import show, tables, write_reports
from plprune.records import RECORD, provenance, read_record, summarise, write_record
from plprune.storage import load_checkpoint, save_checkpoint

FEW = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text(max_size=6) | st.sampled_from(["<script>alert(1)</script>", "../../x", "\x00", "%s"])
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def places(value, path=()):
    """Every place of a JSON value."""
    yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from places(inner, (*path, key))


def with_change(value, path, change):
    """`value` with `change` at one place."""
    if not path:
        return change
    found = copy.deepcopy(value)
    at = found
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = change
    return found


def record():
    results = {
        "gd/dense": {"kappa": [2.0, 4.0], "train_seconds": [0.1, 0.2]},
        "gd/kappa": {"kappa": [1.0, None], "steps_to_target": [3, 4]},
    }
    where = provenance()
    return where | {
        "experiment": "toy", "preset": "quick", "command": "python -m experiments toy",
        "config": {"seed": 0, "seeds": 2, "scale": "A toy."}, "seeds": [0, 1],
        "results": summarise(results),
    }  # fmt: skip


RECORD_NOW = record()
CURVES_NOW = {"gd/kappa/train_loss": np.ones((2, 3))}


@pytest.mark.usefixtures("toy")
@settings(max_examples=40, **FEW)
@given(st.sampled_from([path for path in places(RECORD_NOW) if path]), JSON)
def test_any_record_gives_a_report_or_an_error_in_words(tmp_path, path, change):
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    write_record(folder, RECORD_NOW, CURVES_NOW)
    (folder / RECORD).write_text(json.dumps(with_change(RECORD_NOW, path, change)))
    try:
        pages = write_reports(tmp_path)
        found, _ = read_record(folder)
        tables(found)
        show(found, Console(quiet=True))
    except ValueError as error:
        outcome = str(error)
    else:
        outcome = pages[0].read_text()
        assert "<script>alert(1)" not in outcome
    assert outcome
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "index.html"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_checkpoint(folder, 1, {"x": np.arange(6.0).reshape(2, 3), "y": np.ones(2, np.float32)})
    return folder


def resum(folder):
    """Sums that match, from whoever can compute SHA-256."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for file in manifest["files"]:
        manifest["files"][file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))
    seal(folder)


def seal(folder):
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


def loaded_or_refused(folder):
    like = {"x": np.zeros((2, 3)), "y": np.zeros(2, np.float32)}
    try:
        found = load_checkpoint(folder, like)
    except (ValueError, FileNotFoundError) as error:
        assert str(error)  # noqa: PT017
    else:
        assert found.tree["x"].shape == (2, 3)


@settings(max_examples=40, **FEW)
@given(st.data())
def test_any_manifest_is_taken_or_refused_in_words(saved, tmp_path, data):
    folder = shutil.copytree(saved, tmp_path / "copy", dirs_exist_ok=True)
    path = folder / "step_0000000001" / "manifest.json"
    manifest = json.loads(path.read_text())
    place = data.draw(st.sampled_from(list(places(manifest))))
    path.write_text(json.dumps(with_change(manifest, place, data.draw(JSON))))
    seal(path.parent)
    loaded_or_refused(folder)


# Where one leaf cannot be read, orbax leaves the reads of the others behind.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=30, **FEW)
@given(st.data())
def test_any_bytes_in_a_saved_array_are_taken_or_refused_in_words(saved, tmp_path, data):
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    folder = shutil.copytree(saved, tmp_path / "copy")
    files = sorted(path for path in folder.rglob("arrays/**/*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    resum(folder / "step_0000000001")
    loaded_or_refused(folder)


SETTINGS = sorted(
    {
        (name, setting)
        for name in experiments.EXPERIMENTS
        for preset in settings_of(name).PRESETS.values()
        for setting, _ in flags(preset)
    }
)
VALUES = [
    "",
    "0",
    "-1",
    "1",
    "1e308",
    "1e-300",
    "nan",
    "-inf",
    "10" * 20,
    "a",
    "../x",
    "1,1",
    "0,2",
]


@settings(max_examples=100, **FEW)
@given(st.sampled_from(SETTINGS), st.sampled_from(VALUES) | st.text(max_size=4))
def test_any_setting_of_any_experiment_is_taken_or_refused_in_a_line(setting, text):
    name, field = setting
    try:
        outcome = parse(name, [f"--{field}={text}"])
    except ValueError as error:
        outcome = str(error)
        assert "\n" not in outcome
    assert outcome


def test_every_setting_can_be_written_and_read_again():
    count = 0
    for name in experiments.EXPERIMENTS:
        for preset, config in settings_of(name).PRESETS.items():
            plain = [(k, v) for k, v in flags(config) if not k.endswith(".stages")]
            words = [f"--{setting}={written(value)}" for setting, value in plain]
            assert parse(name, ["--preset", preset, *words]).config == config
            count += len(words)
    assert count > 1000
