"""AUC and intervals, operating points, calibration, levels. NumPy and scikit-learn only."""
