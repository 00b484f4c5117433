# SPDX-License-Identifier: Apache-2.0
"""Which axes shrink together, what is known of masked entries, and evaluation at the new sizes."""
