"""Predictions on disk: the prediction store and the challenge's submission file."""
