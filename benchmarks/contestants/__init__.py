"""Programs that time one method each, run in the environment of their library."""
