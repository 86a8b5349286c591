"""From classifiers to figures, a registered model, scores and the report."""
