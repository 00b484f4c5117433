# SPDX-License-Identifier: Apache-2.0
"""Pictures of your own model, one column wide: spectra, training, nodes. Needs `pictures`.

Every function returns a matplotlib `Figure` that is in no global list: it shows itself in a
notebook, and ``figure.savefig("name.pdf")`` writes it. The title of each is what it found.
"""

from plprune.pictures.frontiers import condition_frontier
from plprune.pictures.look import style
from plprune.pictures.networks import kept_nodes, network_sizes
from plprune.pictures.spectra import hessian_density, kernel_spectrum
from plprune.pictures.training import condition_along_training

__all__ = [
    "condition_along_training",
    "condition_frontier",
    "hessian_density",
    "kept_nodes",
    "kernel_spectrum",
    "network_sizes",
    "style",
]
