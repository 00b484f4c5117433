# SPDX-License-Identifier: Apache-2.0
"""Greedy pruning with group lasso: matrix sensing, quadratic networks and image classifiers."""
