# SPDX-License-Identifier: Apache-2.0
"""Graphs are walked over without the collector, which is as it was afterwards."""

import gc

import jax
import jax.numpy as jnp
import pytest

from plprune.graph.hosting import undisturbed


@pytest.fixture
def collector():
    yield
    gc.enable()


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_rests_and_is_as_it_was_afterwards(was_on):
    (gc.enable if was_on else gc.disable)()
    with undisturbed():
        assert not gc.isenabled()
    assert gc.isenabled() == was_on
    with pytest.raises(KeyError), undisturbed():
        raise KeyError
    assert gc.isenabled() == was_on


def test_arrays_are_on_the_cpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with undisturbed():
        assert jnp.ones(2).devices() == {jax.local_devices(backend="cpu")[0]}
