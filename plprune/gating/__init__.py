"""Gates learned by minimising the condition number, as an optax transformation."""

from plprune.gating.budgets import kept_fraction
from plprune.gating.objectives import Slope, log_condition_number
from plprune.gating.transformation import GatingState, pl_gating, score_gating

__all__ = [
    "GatingState",
    "Slope",
    "kept_fraction",
    "log_condition_number",
    "pl_gating",
    "score_gating",
]
