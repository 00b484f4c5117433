# SPDX-License-Identifier: Apache-2.0
"""Structured pruning by the condition number, after the abstract of [Chen 2023]."""
