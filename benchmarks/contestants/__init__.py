# SPDX-License-Identifier: Apache-2.0
"""Programs that time one method each, run in the environment of their library."""
