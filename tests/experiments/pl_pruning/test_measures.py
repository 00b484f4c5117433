# SPDX-License-Identifier: Apache-2.0
"""The Hessian's norm by two ways."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments.pl_pruning import measures
from experiments.pl_pruning.config import PRESETS
from experiments.pl_pruning.data import load_splits
from experiments.pl_pruning.problem import problem_of
from experiments.pl_pruning.settings import network
from experiments.pl_pruning.trainer import optimizer
from plprune.training import start

pytestmark = pytest.mark.usefixtures("models_broadcast")

CONFIG = replace(PRESETS["quick"], network=network("mlp", hidden=(8, 6), activation="tanh"))
REGIME = CONFIG.regimes[0]


@pytest.fixture
def problem():
    return problem_of(CONFIG, REGIME, load_splits(CONFIG), 0)


def test_products_one_by_one_give_the_hessian_norm_of_lanczos(problem, monkeypatch):
    now = start(problem.params, problem.state, optimizer(REGIME, 0.1), key=jax.random.key(0))
    expected = measures.hessian_norm(problem.trainer, now, problem.data)
    monkeypatch.setattr(measures, "scans_slowly", lambda _: True)
    found = measures.hessian_norm(problem.trainer, now, problem.data)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    broken = now._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, now.params))
    with pytest.raises(ValueError, match="could not be resolved"):
        measures.hessian_norm(problem.trainer, broken, problem.data)
