"""Synthetic mammograms in the layouts of real releases. Pure functions: no Ray, no files."""
