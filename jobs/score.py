"""Score new images with a registered model: one row a file, whatever happens to it. Never trains.

    ray job submit --working-dir . -- python jobs/score.py --model models:/mammoflow@champion \
        --images s3://bucket/new --out s3://bucket/scores.parquet

Reads    DICOM, PNG, TIFF or PGM files below a folder or URL
Writes   Parquet: path, probability, decision at the operating point, members' scores, model version, error
Next     nothing; read the table with any Parquet reader
"""

from dataclasses import dataclass, field

from mammoflow import cli, cluster, lake, tables, tracking
from mammoflow.config import ComputeConfig
from mammoflow.results import scoring


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
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """CPUs and GPUs to use."""


def main() -> None:
    """Score, write the table, print its head and what could not be scored."""
    options = cli.options(__doc__, Options)
    uri = tracking.uri(lake.Lake(lake.resolve_root(options.lake)))
    tracking.check_reachable(uri)
    cluster.start()
    table = scoring.score(options.model, uri, options.images, options.out, options.compute)
    rows = table.to_pylist()
    shown = [[row["path"], row["probability"] if not row["error"] else row["error"]] for row in rows[:20]]
    tables.show(f"First {len(shown)} of {len(rows)} images", ["path", "probability of malignancy"], shown)
    failed = sum(bool(row["error"]) for row in rows)
    print(f"{len(rows) - failed} images scored, {failed} could not be; {options.out}")


if __name__ == "__main__":
    cli.run(main)
