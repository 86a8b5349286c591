r"""Score new images with a registered model: one row a file, whatever happens to it. Never trains.

    ray job submit --working-dir . -- python jobs/score.py --model models:/mammoflow@champion \
        --images s3://bucket/new --out s3://bucket/scores.parquet

Reads    DICOM, PNG, TIFF, PGM or JPEG files below a folder or URL
Writes   Parquet: path, probability, decision at the operating point, members' scores, model version, error
Next     nothing; read the table with any Parquet reader
"""

from dataclasses import dataclass, field

from tyro.conf import FlagConversionOff

from mammoflow import cli, cluster, lake, tables, tracking
from mammoflow.config import ComputeConfig
from mammoflow.errors import QuarantineError
from mammoflow.results import registered_model, scoring


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to score, with what, and where to write."""

    images: str
    """Folder or URL of the images, searched with all folders below it."""
    out: str
    """Parquet file to write."""
    model: str = "models:/mammoflow@champion"
    """Registered model, as MLflow names it."""
    lake: str | None = None
    """The lake whose registry is meant, where MLFLOW_TRACKING_URI names none."""
    compute: FlagConversionOff[ComputeConfig] = field(default_factory=ComputeConfig)
    """CPUs and GPUs to use, and how many images may fail."""


def main() -> None:
    """Score, write the table, print its head and what could not be scored."""
    options = cli.options(__doc__, Options)
    uri = tracking.uri(lake.Lake(lake.resolve_root(options.lake)))
    tracking.check_registry(uri)
    model = registered_model.describe(uri, options.model)
    paths = scoring.find_files(options.images)
    lake.check_writable(options.out)
    print(f"{model.uri} at {tracking.public(uri)}: {len(paths)} images in {options.images}", flush=True)
    cluster.check_versions()
    cluster.start()
    cluster.check_gpus(options.compute)
    cluster.check_nodes(options.images, options.out)
    rows = scoring.score(model.uri, uri, paths, options.out, options.compute).to_pylist()
    tables.show_probabilities(rows, options.images)
    failed = sum(bool(row["error"]) for row in rows)
    print(f"{len(rows) - failed} images scored, {failed} could not be; {options.out}")
    if failed > options.compute.max_bad * len(rows):
        raise QuarantineError(
            f"{failed} of {len(rows)} images could not be scored, at most {options.compute.max_bad:.1%} may; their "
            f"reasons stand in column `error` of {options.out}; mend the files, or allow more with --max-bad"
        )


if __name__ == "__main__":
    cli.run(main)
