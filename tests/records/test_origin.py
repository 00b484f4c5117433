# SPDX-License-Identifier: Apache-2.0
"""Where numbers come from: versions, commit, device, and the settings that change them."""

import jax

from plprune.records import check_record, numerics, provenance


def test_provenance_names_versions_commit_and_device():
    found = provenance()
    assert {"python", "plprune", "jax", "numpy"} <= found["versions"].keys()
    assert found["commit"] is None or len(found["commit"].removesuffix("-dirty")) == 40
    assert found["device"]
    record = {
        "experiment": "toy", "preset": "quick", "config": {}, "command": "", "seeds": [0],
        "results": {},
    }  # fmt: skip
    check_record(record | found, {})


def test_numerics_name_what_changes_numbers(monkeypatch):
    before = numerics()
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        changed = {key for key, value in numerics().items() if value != before[key]}
    assert changed == {"jax_enable_x64", "jax_default_matmul_precision"}
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_dump_to=x --xla_a=2")
    assert numerics()["XLA_FLAGS"] == "--xla_a=2"
    assert before["device"].startswith(jax.devices()[0].platform)
    assert provenance()["numerics"].keys() == before.keys()
