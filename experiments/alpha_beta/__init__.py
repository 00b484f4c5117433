# SPDX-License-Identifier: Apache-2.0
"""The alpha-beta-condition: on analytic examples and along training runs."""
