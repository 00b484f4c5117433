# SPDX-License-Identifier: Apache-2.0
"""Condition numbers of neural networks, and pruning by them, in functional JAX.

Names are imported when they are first used, so that ``import plprune`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "conditions": ("alpha_beta_frontier", "smallest_beta"),
    "compilation": ("disable_compilation_cache", "enable_compilation_cache", "forget_compiled"),
    "constants": (
        "Measurement",
        "condition_number",
        "lipschitz_constant",
        "measure",
        "pl_constant",
    ),
    "gating": ("GatingState", "pl_gating", "score_gating"),
    "kernels": (
        "leaf_kernels",
        "node_kernels",
        "projected_kernel",
        "sharded_kernel",
        "tangent_kernel",
        "traced_kernel",
    ),
    "nodes": (
        "Target",
        "expand",
        "find_nodes",
        "gate",
        "keep_top",
        "keep_within",
        "mask",
        "reconstruct",
        "resize",
        "shrink",
        "shrink_model",
        "unstack",
    ),
    "operators": ("hessian_product", "tangent_kernel_product"),
    "pruning": ("Plan", "Pruned", "plan", "prune"),
    "optimizers": ("adagrad_norm_max", "dec_sps", "group_lasso", "ngn", "nsgd", "sps_max"),
    "recalibration": ("recalibrate",),
    "stages": ("gated_training",),
    "storage": ("load_shrunk", "save_shrunk", "shrink_checkpoint"),
    "types": ("Estimate", "Member", "NodeGroup", "NodeGroups"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = (
    "compilation", "conditions", "constants", "costs", "data", "extras", "functional", "gating",
    "graph", "kernels", "losses", "matrix_sensing", "models", "nodes", "operators", "optimizers",
    "pictures", "pruning", "recalibration", "records", "scores", "spectra", "stages", "storage",
    "training", "types",
)  # fmt: skip

if TYPE_CHECKING:
    from plprune.compilation import (
        disable_compilation_cache,
        enable_compilation_cache,
        forget_compiled,
    )
    from plprune.conditions import alpha_beta_frontier, smallest_beta
    from plprune.constants import (
        Measurement,
        condition_number,
        lipschitz_constant,
        measure,
        pl_constant,
    )
    from plprune.gating import GatingState, pl_gating, score_gating
    from plprune.kernels import (
        leaf_kernels,
        node_kernels,
        projected_kernel,
        sharded_kernel,
        tangent_kernel,
        traced_kernel,
    )
    from plprune.nodes import (
        Target,
        expand,
        find_nodes,
        gate,
        keep_top,
        keep_within,
        mask,
        reconstruct,
        resize,
        shrink,
        shrink_model,
        unstack,
    )
    from plprune.operators import hessian_product, tangent_kernel_product
    from plprune.optimizers import adagrad_norm_max, dec_sps, group_lasso, ngn, nsgd, sps_max
    from plprune.pruning import Plan, Pruned, plan, prune
    from plprune.recalibration import recalibrate
    from plprune.stages import gated_training
    from plprune.storage import load_shrunk, save_shrunk, shrink_checkpoint
    from plprune.types import Estimate, Member, NodeGroup, NodeGroups

__all__ = [
    "Estimate",
    "GatingState",
    "Measurement",
    "Member",
    "NodeGroup",
    "NodeGroups",
    "Plan",
    "Pruned",
    "Target",
    "adagrad_norm_max",
    "alpha_beta_frontier",
    "condition_number",
    "dec_sps",
    "disable_compilation_cache",
    "enable_compilation_cache",
    "expand",
    "find_nodes",
    "forget_compiled",
    "gate",
    "gated_training",
    "group_lasso",
    "hessian_product",
    "keep_top",
    "keep_within",
    "leaf_kernels",
    "lipschitz_constant",
    "load_shrunk",
    "mask",
    "measure",
    "ngn",
    "node_kernels",
    "nsgd",
    "pl_constant",
    "pl_gating",
    "plan",
    "projected_kernel",
    "prune",
    "recalibrate",
    "reconstruct",
    "resize",
    "save_shrunk",
    "score_gating",
    "sharded_kernel",
    "shrink",
    "shrink_checkpoint",
    "shrink_model",
    "smallest_beta",
    "sps_max",
    "tangent_kernel",
    "tangent_kernel_product",
    "traced_kernel",
    "unstack",
]


def __getattr__(name: str) -> Any:
    """A public name or a module, imported now."""
    if name in _HOME:
        return getattr(import_module(f"plprune.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"plprune.{name}")
    raise AttributeError(f"module 'plprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names and modules."""
    return sorted({*__all__, *_MODULES, "__version__"})
