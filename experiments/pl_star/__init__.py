"""The PL* condition on real networks: constants, certificates, and where they are loose."""
