"""Constants of an optimisation problem: PL, Lipschitz, and their ratio."""

from plprune.constants.condition import condition_number
from plprune.constants.lipschitz import lipschitz_constant
from plprune.constants.pl import pl_constant

__all__ = ["condition_number", "lipschitz_constant", "pl_constant"]
