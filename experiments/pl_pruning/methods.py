# SPDX-License-Identifier: Apache-2.0
"""The ways to choose nodes that are compared, by name."""

DENSE = ("dense",)

# Gates learned by `plprune.gating.pl_gating`.
LEARNED = {
    "kappa": "gates that minimise the condition number of the tangent kernel",
    "kappa_mlp": "the same, with a gating network shared by the nodes of a kind",
    "kappa_annealed": "the same, with gates sharpened over ten times as many updates",
    "kappa_global": "the same, with one budget for all layers; half of each layer's share stays",
    "kappa_cost": "the same, with one budget of FLOPs; half of each layer's share stays",
    "kappa_hard_concrete": "the same, with noisy gates that may be exactly zero or one",
    "kappa_outputs": "the same of all outputs, on half of the probe, with gates sharpened",
    "kappa_risk": "condition number plus the loss with closed nodes closed",
    "lipschitz_mu": "the Hessian's norm over the PL constant",
    "lambda_max_only": "ablation: the largest eigenvalue alone",
    "trace_only": "ablation: the trace alone",
    "median": "ablation: the median eigenvalue in place of the smallest",
}

# Functions of `plprune.scores` of the same name.
SCORED = (
    "random",
    "magnitude",
    "group_lasso_norm",
    "snip",
    "grasp",
    "synflow",
    "ntk_sap",
    "taylor",
    "node_lambda_max",
)

# What is not conditioning, each with its own learning rate.
CONTROLS = {
    "random_widths": "random nodes, as many of each layer as kappa_global keeps",
    "magnitude_widths": "the largest nodes, as many of each layer as kappa_global keeps",
    "random_tapered": "random nodes, layers' shares falling from 3/2 of the fraction to 1/2",
    "random_flared": "random nodes, layers' shares rising from 1/2 of the fraction to 3/2",
    "random_scaled": "random nodes, every layer scaled to the activations that kappa's has",
    "magnitude_scaled": "the largest nodes, scaled likewise",
    "dense_scaled": "all nodes, scaled likewise",
    "dense_small": "all nodes, every initial kernel halved",
    "kappa_small": "kappa's choice on the network with halved kernels",
    "random_small": "random nodes of that network",
    "magnitude_small": "the largest nodes of that network",
    "fresh": "a narrow network with initial weights of its own",
}

METHODS = (*DENSE, *LEARNED, *SCORED, *CONTROLS)
DEFAULT = ("dense", "kappa", "random", "magnitude")
WHOLE = ("dense", "dense_small")  # They keep all nodes whatever the fraction.
KEEP_ALL = (*WHOLE, "dense_scaled")
FOR_MLP = tuple(name for name in CONTROLS if not name.endswith(("_widths", "_small")))


def explained() -> str:
    """One sentence on what each method is, for help texts."""
    told = [f"{name} ({text})" for name, text in (LEARNED | CONTROLS).items()]
    return ", ".join((*DENSE, *told, *SCORED))


def method_of(key: str) -> str:
    """The method of a record's key such as ``sgd/kappa@0.25``."""
    return key.rpartition("/")[2].partition("@")[0]
