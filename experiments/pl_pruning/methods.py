# SPDX-License-Identifier: Apache-2.0
"""The ways to choose nodes that are compared: one record each, and all that is known of them.

To add a score, add an entry. `Score` names a function with the signature of those in
`plprune.scores`, as ``package.module:function``; it is imported when the method runs.
"""

from dataclasses import dataclass
from typing import Any, Literal

Look = tuple[str, str, str]  # As of `experiments.report.style`.


@dataclass(frozen=True)
class Gates:
    """Gates learned by `plprune.gating.pl_gating`; None where its own default serves."""

    objective: str = "plprune.gating:log_condition_number"  # Makes what they minimise.
    arguments: tuple[tuple[str, Any], ...] = ()  # Of that function.
    with_loss: bool = False  # Plus the loss with closed nodes closed, times `risk_weight`.
    network: Literal["mlp"] | None = None
    budget: Literal["global", "cost"] | None = None  # Of all layers; half of each share stays.
    sharpened: int = 0  # Times as many updates, over which the temperature falls from 1 to .1.
    noisy: bool = False  # Hard-concrete gates.
    probe_parts: int = 1  # One of which is used.
    rate: float | None = None  # Of Adam.


@dataclass(frozen=True)
class Score:
    """A number per node: the largest stay."""

    function: str
    examples: int = 0  # At least so many of the probe.


@dataclass(frozen=True)
class Control:
    """What is not conditioning, with its own learning rate."""

    change: Literal[
        "widths", "tapered", "flared", "scaled", "halved", "fresh", "redrawn", "matched"
    ]
    of: str = ""  # The method whose nodes are taken.

    @property
    def needs_mlp(self) -> bool:
        """Whether it is for multilayer perceptrons only."""
        return self.change not in ("widths", "halved", "redrawn", "matched")


@dataclass(frozen=True)
class Method:
    """A way to choose nodes, in words and in figures."""

    name: str
    words: str
    look: Look
    by: Gates | Score | Control | None = None  # None: nothing is chosen.

    @property
    def keeps_all(self) -> bool:
        """Whether no node goes."""
        return self.by is None or (isinstance(self.by, Control) and self.by.of == "dense")

    @property
    def ignores_fraction(self) -> bool:
        """Whether the network is the same whatever the fraction."""
        return self.keeps_all and not self.changes("scaled")

    def changes(self, change: str) -> bool:
        """Whether it is the control of that name."""
        return isinstance(self.by, Control) and self.by.change == change


_ALL = (
    Method("dense", "all nodes", ("ink", "solid", "s")),
    Method("kappa", "gates that minimise the condition number of the tangent kernel",
           ("blue", "solid", "o"), Gates()),
    Method("kappa_mlp", "the same, with a gating network shared by the nodes of a kind",
           ("blue", "dashdotted", "^"), Gates(network="mlp")),
    Method("kappa_annealed", "the same, with gates sharpened over ten times as many updates",
           ("blue", "dashed", "s"), Gates(sharpened=10)),
    Method("kappa_global",
           "the same, with one budget for all layers; half of each layer's share stays",
           ("pink", "solid", "v"), Gates(budget="global")),
    Method("kappa_cost", "the same, with one budget of FLOPs; half of each layer's share stays",
           ("pink", "dotted", "X"), Gates(budget="cost")),
    Method("kappa_hard_concrete", "the same, with noisy gates that may be exactly zero or one",
           ("purple", "solid", "o"), Gates(noisy=True)),
    Method("kappa_outputs", "the same of all outputs, on half of the probe, with gates sharpened",
           ("purple", "dotted", "X"),
           # In the mean, a tenth of the eigenvalues.
           Gates(arguments=(("num_smallest", 30), ("num_combinations", None)),
                 sharpened=3, probe_parts=2, rate=0.4)),
    Method("kappa_risk", "condition number plus the loss with closed nodes closed",
           ("sky", "dashed", "P"), Gates(with_loss=True)),
    Method("lipschitz_mu", "the Hessian's norm over the PL constant",
           ("pink", "dashed", "P"), Gates("plprune.gating:log_smoothness_ratio")),
    Method("lambda_max_only", "ablation: the largest eigenvalue alone",
           ("orange", "dashdotted", "*"), Gates("plprune.gating:log_largest_eigenvalue")),
    Method("trace_only", "ablation: the trace alone",
           ("purple", "dashed", "s"), Gates("plprune.gating:log_trace")),
    Method("trace", "gates that minimise the trace over the smallest eigenvalues",
           ("orange", "dashdotdotted", "o"), Gates("plprune.gating:log_trace_ratio")),
    Method("median", "ablation: the median eigenvalue in place of the smallest",
           ("sky", "solid", "o"), Gates("plprune.gating:log_median_ratio")),
    Method("random", "random nodes",
           ("vermilion", "dashed", "s"), Score("plprune.scores:random")),
    Method("magnitude", "the norm of the weights that compute a node",
           ("green", "dotted", "D"), Score("plprune.scores:magnitude")),
    Method("group_lasso_norm", "the norm of all weights of a node, in and out",
           ("grey", "dashdotted", "*"), Score("plprune.scores:group_lasso_norm")),
    # Scores that average over examples are published with 256 or so.
    Method("snip", "how fast the loss changes with a node's gate",
           ("pink", "dashdotted", "^"), Score("plprune.scores:snip", examples=256)),
    Method("grasp", "what a node adds to the flow of gradients",
           ("orange", "solid", "v"), Score("plprune.scores:grasp", examples=256)),
    Method("synflow", "the flow through a node with every weight positive",
           ("sky", "dotted", "X"), Score("plprune.scores:synflow")),
    Method("ntk_sap", "how fast the outputs' answer to noisy weights changes with a node's gate",
           ("purple", "dashdotted", "*"), Score("plprune.scores:ntk_sap")),
    Method("taylor", "how fast each example's loss changes with a node's gate, in the mean",
           ("orange", "dashed", "P"), Score("plprune.scores:taylor", examples=256)),
    Method("node_lambda_max",
           "the largest eigenvalue of the tangent kernel of what computes a node",
           ("grey", "solid", "o"), Score("plprune.scores:node_lambda_max")),
    Method("obs", "the error of the layers that read a node, once it is gone",
           ("grey", "dotted", "D"), Score("plprune.scores:obs", examples=256)),
    Method("activation", "the norm of what a node puts out",
           ("ink", "dashdotted", "*"), Score("plprune.scores:activation", examples=256)),
    Method("random_widths", "random nodes, as many of each layer as kappa_global keeps",
           ("vermilion", "dotted", "D"), Control("widths", of="random")),
    Method("magnitude_widths", "the largest nodes, as many of each layer as kappa_global keeps",
           ("green", "dashdotted", "^"), Control("widths", of="magnitude")),
    Method("random_tapered", "random nodes, layers' shares falling from 3/2 of the fraction to 1/2",
           ("orange", "dotted", "X"), Control("tapered", of="random")),
    Method("random_flared", "random nodes, layers' shares rising from 1/2 of the fraction to 3/2",
           ("sky", "dashdotted", "*"), Control("flared", of="random")),
    Method("random_scaled", "random nodes, every layer scaled to the activations that kappa's has",
           ("vermilion", "dashdotted", "^"), Control("scaled", of="random")),
    Method("magnitude_scaled", "the largest nodes, scaled likewise",
           ("green", "solid", "v"), Control("scaled", of="magnitude")),
    Method("dense_scaled", "all nodes, scaled likewise",
           ("ink", "dotted", "P"), Control("scaled", of="dense")),
    Method("dense_small", "all nodes, every initial kernel halved",
           ("ink", "dashed", "D"), Control("halved", of="dense")),
    Method("kappa_small", "kappa's choice on the network with halved kernels",
           ("blue", "dotted", "D"), Control("halved", of="kappa")),
    Method("random_small", "random nodes of that network",
           ("vermilion", "solid", "v"), Control("halved", of="random")),
    Method("magnitude_small", "the largest nodes of that network",
           ("green", "dashed", "P"), Control("halved", of="magnitude")),
    Method("redrawn", "kappa's nodes with initial weights drawn anew",
           ("sky", "dashdotdotted", "s"), Control("redrawn", of="kappa")),
    Method("random_matched", "random nodes, every kernel scaled alike to kappa's Hessian norm",
           ("vermilion", "dashdotdotted", "o"), Control("matched", of="random")),
    Method("fresh", "a narrow network with initial weights of its own",
           ("grey", "dashed", "s"), Control("fresh")),
)  # fmt: skip

METHODS = {method.name: method for method in _ALL}
LOOKS = {method.name: method.look for method in _ALL}
LEARNED = tuple(method.name for method in _ALL if isinstance(method.by, Gates))
SCORED = tuple(method.name for method in _ALL if isinstance(method.by, Score))
# Of any network: obs refuses nodes that are read by anything but plain products, such as experts.
ANYWHERE = tuple(name for name in SCORED if name != "obs")
CONTROLS = tuple(method.name for method in _ALL if isinstance(method.by, Control))
DEFAULT = ("dense", "kappa", "random", "magnitude")
WHOLE = tuple(method.name for method in _ALL if method.ignores_fraction)
KEEP_ALL = tuple(method.name for method in _ALL if method.keeps_all)
FOR_MLP = tuple(
    method.name for method in _ALL if isinstance(method.by, Control) and method.by.needs_mlp
)


def explained() -> str:
    """One sentence on what each method is, for help texts."""
    return ", ".join(f"{method.name} ({method.words})" for method in _ALL)


def method_of(key: str) -> str:
    """The method of a record's key such as ``sgd/kappa@0.25``."""
    return key.rpartition("/")[2].partition("@")[0]
