"""mammoflow: screening mammograms in, a whole-image cancer classifier out, on Ray.

The pipeline, each stage a job that reads what the one before it left in the lake:

    release (DICOM) -> data.ingest -> images -> data.ingest -> patches
    patches -> training.distributed -> patch classifier (the trunk)
    images + trunk -> training.tuning -> whole-image classifiers, one MLflow run each
    -> results.evaluation -> results.ensemble -> registered model -> results.scoring, results.report

Importing this package imports nothing else and has no effect.
"""

__version__ = "0.1.0"
