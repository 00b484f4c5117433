"""Constants of an optimisation problem: PL, Lipschitz, and their ratio."""

from plprune.constants.condition import condition_number
from plprune.constants.lipschitz import (
    LargestSeen,
    lipschitz_constant,
    lipschitz_in_ball,
    lipschitz_on_path,
)
from plprune.constants.pl import pl_constant, pl_ratio

__all__ = [
    "LargestSeen",
    "condition_number",
    "lipschitz_constant",
    "lipschitz_in_ball",
    "lipschitz_on_path",
    "pl_constant",
    "pl_ratio",
]
