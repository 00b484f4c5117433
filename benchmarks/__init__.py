# SPDX-License-Identifier: Apache-2.0
"""Speed and memory against peers, as ratios within one run."""
