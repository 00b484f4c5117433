"""Extreme eigenvalues with error bounds, of dense matrices and of products."""

from plprune.spectra.dense import ExtremePairs, extreme_eigenpairs
from plprune.spectra.gradients import extreme_eigenvalues, smallest_mean
from plprune.spectra.lanczos import RitzEnds, ritz_ends

__all__ = [
    "ExtremePairs",
    "RitzEnds",
    "extreme_eigenpairs",
    "extreme_eigenvalues",
    "ritz_ends",
    "smallest_mean",
]
