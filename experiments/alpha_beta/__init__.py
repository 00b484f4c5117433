"""The alpha-beta-condition: on analytic examples and along training runs."""
