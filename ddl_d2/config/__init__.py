"""Every config key with its default, and reading and checking of configs."""
