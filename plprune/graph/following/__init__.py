# SPDX-License-Identifier: Apache-2.0
"""One axis followed through a graph: the batch, or the channels of a layer."""
