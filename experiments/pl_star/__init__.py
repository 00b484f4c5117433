# SPDX-License-Identifier: Apache-2.0
"""The PL* condition on real networks: constants, certificates, and where they are loose."""
