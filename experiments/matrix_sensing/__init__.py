"""Greedy pruning with group lasso: matrix sensing, quadratic networks and image classifiers."""
