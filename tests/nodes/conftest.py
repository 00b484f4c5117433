# SPDX-License-Identifier: Apache-2.0
"""Model functions broadcast ranks."""

import pytest


@pytest.fixture(autouse=True)
def broadcasting(models_broadcast):
    """Let `x @ w + b` broadcast in every test here."""
