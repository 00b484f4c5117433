# SPDX-License-Identifier: Apache-2.0
"""Where pruning by the condition number pays: a map over losses, optimisers, depths and batches."""
