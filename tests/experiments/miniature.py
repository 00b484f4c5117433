# SPDX-License-Identifier: Apache-2.0
"""A record as a run writes it, from the results and curves of an experiment in miniature."""

import dataclasses

from plprune.records import check_record, summarise


def drawn(config, figures, words, found):
    """The figures of (results, curves), of which all metrics are explained."""
    results, curves = found
    record = record_of(config, found)
    explained = {metric for entries in results.values() for metric in entries}
    assert explained <= words.METRICS.keys()
    assert all(isinstance(line, str) for line in words.measured(record))
    return figures.draw(record, curves)


def record_of(config, found):
    """The checked record of (results, curves) of two seeds."""
    results, curves = found
    record = {
        "experiment": type(config).__module__.split(".")[1], "preset": "quick",
        "config": dataclasses.asdict(config),
        "command": "", "versions": {}, "commit": None, "device": "", "seeds": [0, 1],
        "results": summarise(results),
    }  # fmt: skip
    check_record(record, curves)
    return record
