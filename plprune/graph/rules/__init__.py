# SPDX-License-Identifier: Apache-2.0
"""What every pass does with each primitive, family by family; each file ends with its entries."""
