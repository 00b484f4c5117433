"""Step-size rules and regularisers as optax transformations."""

from plprune.optimizers.group_lasso import group_lasso, keep_above, node_norms

__all__ = ["group_lasso", "keep_above", "node_norms"]
