# SPDX-License-Identifier: Apache-2.0
"""The words of a record say which kernel was measured, and what every method is."""

from dataclasses import replace

import pytest
from pruning_records import PLAIN, entry, record_of

from experiments.pl_pruning.methods import METHODS
from experiments.pl_pruning.words import measured, metrics
from experiments.report.tables import known_metrics


@pytest.mark.parametrize(("all_outputs", "kernel"), [(True, "all outputs"), (False, "random")])
def test_the_condition_number_is_said_to_be_that_of_the_kernel_that_was_measured(
    all_outputs, kernel
):
    config = replace(PLAIN, all_outputs=all_outputs, held_out=48)
    record = record_of(config, {"sgd/dense": entry(pl_constant=[1.0, 2.0])})
    record["versions"] = {"data": "digits"}
    known = known_metrics(record, metrics(record))
    for name in ("kappa", "pl_constant"):
        assert kernel in known[name].meaning
    assert "48 test examples" in known["kappa"].meaning
    assert "all outputs" not in known["kappa"].meaning or all_outputs
    assert any(
        f"tangent kernel of {'all' if all_outputs else 'one'}" in p for p in measured(record)
    )


def test_every_method_of_the_record_is_explained_and_unknown_ones_are_left_out():
    config = replace(PLAIN, methods=("dense", "snip", "fresh", "of_another_version"))
    told = " ".join(measured(record_of(config, {})))
    for name in ("dense", "snip", "fresh"):
        assert f"{name}: {METHODS[name].words}" in told
    assert "of_another_version" not in told
