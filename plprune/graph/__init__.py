# SPDX-License-Identifier: Apache-2.0
"""One walk over the jaxpr of a function: equations, node labels, zeros, evaluation at new sizes."""
