"""Checkpoints: saving, resuming, loading, and names of published weights."""
