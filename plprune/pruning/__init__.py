# SPDX-License-Identifier: Apache-2.0
"""Any JAX model pruned in one call, by the pure functions that do it step by step."""

from plprune.pruning.one_call import Pruned, prune
from plprune.pruning.planning import Plan, plan

__all__ = ["Plan", "Pruned", "plan", "prune"]
