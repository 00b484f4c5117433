# SPDX-License-Identifier: Apache-2.0
"""Any JAX model pruned in one call, by the pure functions that do it step by step."""

from plprune.pruning.one_call import Pruned, prune

__all__ = ["Pruned", "prune"]
