"""New images: scores, heatmaps, DICOM objects."""
