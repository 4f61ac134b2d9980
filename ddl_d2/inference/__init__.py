"""Using trained systems: predictors, the prediction store, the challenge's submission file, overlays and reports."""
