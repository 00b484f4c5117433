# SPDX-License-Identifier: Apache-2.0
"""Where parameters enter linearly: the uses that are gated, and the outer products of kernels."""
