# SPDX-License-Identifier: Apache-2.0
"""Records: means and errors in closed form, null rules, atomic files, and nothing trusted."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plprune.records import (
    CURVES,
    RECORD,
    check_record,
    differences,
    read_record,
    same_record,
    summarise,
    summary,
    write_file,
    write_record,
)

RESULTS = {
    "gd/dense": {"kappa": [2.0, 4.0], "train_seconds": [0.1, 0.2]},
    "gd/kappa": {"kappa": [1.0, None], "train_seconds": [0.3, 0.4]},
}


def record(**changes):
    return {
        "experiment": "toy", "preset": "quick", "config": {"seed": 0}, "command": "python x",
        "versions": {"jax": "0.10"}, "commit": None, "device": "cpu", "seeds": [0, 1],
        "results": summarise(RESULTS),
    } | changes  # fmt: skip


def curves():
    return {
        "gd/dense/train_loss": np.array([[1.0, 0.5], [1.0, np.nan]]),
        "gd/dense/step_seconds": np.ones((2, 3)),
    }


def test_summary_is_the_textbook_mean_and_standard_error():
    # Of 1, 2, 3, 4: variance 5/3 with n - 1, hence sqrt(5/12) for the mean of four.
    entry = summary([1, 2, 3, 4])
    assert entry["mean"] == 2.5
    np.testing.assert_allclose(entry["stderr"], np.sqrt(5 / 12), rtol=1e-15)
    assert entry["values"] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("unresolved", [None, float("nan"), float("inf"), np.float32("nan")])
def test_an_unresolved_value_is_null_and_so_are_mean_and_error(unresolved):
    assert summary([1.0, unresolved]) == {"mean": None, "stderr": None, "values": [1.0, None]}


def test_a_single_seed_has_no_error_and_overflow_no_mean():
    assert summary([3]) == {"mean": 3.0, "stderr": None, "values": [3.0]}
    assert summary([1e308, 1e308])["mean"] is None
    with pytest.raises(ValueError, match="one number per seed"):
        summary([])


def test_round_trip_and_no_nan_in_the_json(tmp_path):
    write_record(tmp_path / "new", record(), curves())
    found, arrays = read_record(tmp_path / "new")
    assert found == record()
    assert arrays.keys() == curves().keys()
    assert "NaN" not in (tmp_path / "new" / RECORD).read_text()
    assert {path.name for path in (tmp_path / "new").iterdir()} == {RECORD, CURVES}


def test_same_record_looks_at_every_bit_but_not_at_seconds():
    base = record(), curves()
    assert same_record(base, base)  # NaN in a curve equals itself.
    slower = json.loads(json.dumps(RESULTS))
    slower["gd/dense"]["train_seconds"] = [9.0, 9.0]
    times = curves() | {"gd/dense/step_seconds": np.zeros((2, 3))}
    moved = record(results=summarise(slower), config={"seed": 7}, device="gpu", versions={})
    assert same_record(base, (moved, times))


@pytest.mark.parametrize("value", [np.nextafter(1.0, 2.0), -0.0, None])
def test_same_record_names_what_differs(value):
    changed = json.loads(json.dumps(RESULTS))
    changed["gd/kappa"]["kappa"][0] = value
    zero = json.loads(json.dumps(RESULTS))
    zero["gd/kappa"]["kappa"][0] = 0.0 if value == 0.0 else 1.0
    a, b = record(results=summarise(zero)), record(results=summarise(changed))
    assert differences((a, curves()), (b, curves())) == ["gd/kappa/kappa"]


def test_same_record_sees_curves_dtypes_and_missing_names():
    base = record(), curves()
    single = curves() | {"gd/dense/train_loss": curves()["gd/dense/train_loss"].astype("float32")}
    assert differences(base, (record(), single)) == ["gd/dense/train_loss (curve)"]
    fewer = {key: value for key, value in curves().items() if "seconds" in key}
    assert not same_record(base, (record(), fewer))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": []}, "at least one integer"),
        ({"seeds": [0, True]}, "at least one integer"),
        ({"preset": None}, "preset has the wrong type"),
        ({"versions": {"jax": 1}}, "versions"),
        ({"results": {"m": 1}}, "must map metrics"),
        ({"results": {"m": {"k": {"mean": 1}}}}, "mean, stderr and values"),
        ({"results": {"m": {"k": {"mean": 1, "stderr": 1, "values": [1]}}}}, "2 values"),
        ({"results": {"m": {"k": {"mean": "<b>", "stderr": 1, "values": [1, 2]}}}}, "finite"),
        ({"results": {"m": {"k": {"mean": 1, "stderr": 1, "values": [1, 1e999]}}}}, "finite"),
        ({"results": {"m": {"k": {"mean": 10**400, "stderr": 1, "values": [1, 1]}}}}, "finite"),
    ],
)
def test_wrong_fields_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_record(tmp_path, record(**change), {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", list(record()))
def test_missing_fields_are_named(field):
    lacking = {key: value for key, value in record().items() if key != field}
    with pytest.raises(ValueError, match=f"no field {field!r}"):
        check_record(lacking, {})
    with pytest.raises(ValueError, match="JSON object"):
        check_record([field], {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.sampled_from(list(record())), JSON)
def test_whatever_a_field_holds_it_is_taken_or_refused_by_name(field, value):
    changed = record(**{field: value})
    try:
        check_record(changed, curves())
    except ValueError:
        return
    assert same_record((changed, {}), (changed, {}))


@pytest.mark.parametrize(
    ("key", "array"),
    [("loss", np.ones((2, 3))), ("m/loss", np.ones((3, 2))), ("m/loss", np.ones(2)),
     ("m/loss", np.full((2, 1), "x"))],
)  # fmt: skip
def test_wrong_curves_are_named(key, array):
    with pytest.raises(ValueError, match=key):
        check_record(record(), {key: array})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"x": NaN}', b"[" * 100_000])
def test_damaged_json_is_refused_by_name(tmp_path, content):
    write_record(tmp_path, record(), curves())
    (tmp_path / RECORD).write_bytes(content)
    with pytest.raises(ValueError, match=r"record\.json"):
        read_record(tmp_path)


def test_every_truncation_of_the_curves_is_refused_by_name(tmp_path):
    write_record(tmp_path, record(), curves())
    whole = (tmp_path / CURVES).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / CURVES).write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"metrics\.npz"):
            read_record(tmp_path)
    (tmp_path / CURVES).unlink()
    with pytest.raises(ValueError, match=r"no .*metrics\.npz"):
        read_record(tmp_path)


def test_no_flipped_byte_of_the_curves_changes_a_number_unseen(tmp_path):
    write_record(tmp_path, record(), curves())
    whole = (tmp_path / CURVES).read_bytes()
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / CURVES).write_bytes(damaged)
        try:
            found = read_record(tmp_path)
        except ValueError as error:
            assert CURVES in str(error) or RECORD in str(error)  # noqa: PT017
        else:
            assert same_record(found, (record(), curves()))


def test_pickled_objects_are_never_loaded(tmp_path):
    write_record(tmp_path, record(), curves())
    np.savez(tmp_path / CURVES, **{"m/x": np.array([[{}], [{}]], object)})
    with pytest.raises(ValueError, match="damaged"):
        read_record(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    write_file(tmp_path / "a", lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_file(tmp_path / "a", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_stopped_rewrite_never_pairs_old_results_with_new_curves(tmp_path, monkeypatch):
    write_record(tmp_path, record(), curves())
    monkeypatch.setattr("plprune.records.os.fsync", lambda _: (_ for _ in ()).throw(OSError()))
    with pytest.raises(OSError):  # noqa: PT011
        write_record(tmp_path, record(), {})
    assert not (tmp_path / RECORD).exists()
