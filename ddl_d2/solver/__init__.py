"""Optimizers, learning-rate schedules, and sharpness-aware steps."""
