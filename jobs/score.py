r"""Score new images with a registered model: one row a file, whatever happens to it. Never trains.

    ray job submit --working-dir . -- python jobs/score.py --model models:/mammoflow@champion \
        --images s3://bucket/new --out s3://bucket/scores

Run again after a kill, or as files come, it scores what is not scored yet.

Reads    DICOM, PNG, TIFF, PGM or JPEG files below a folder or URL
Writes   images.parquet: path, calibrated probability, decision at the operating point, members' scores, warnings,
         error; breasts.parquet and patients.parquet: the same over views; heatmaps/: PNG; dicom/, where asked
Next     nothing; read the tables with any Parquet reader
"""

from dataclasses import dataclass, field

from tyro.conf import FlagConversionOff

from mammoflow import cli, console, lake, tracking
from mammoflow.cluster import nodes, session
from mammoflow.config import ComputeConfig
from mammoflow.errors import QuarantineError
from mammoflow.registry import registered_model
from mammoflow.scoring import score, score_files
from mammoflow.scoring.score import Request
from mammoflow.scoring.score_files import Heatmaps, Outputs


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to score, with what, and where to write."""

    images: str
    """Folder or URL of the images, searched with all folders below it."""
    out: str
    """Folder or URL to write; it holds the scores of one version of one model."""
    model: str = "models:/mammoflow@champion"
    """Registered model, as MLflow names it."""
    heatmaps: Heatmaps = "malignant"
    """Images that get a picture of where their score comes from."""
    dicom: bool = False
    """Write what is found on DICOM files as DICOM too: a Structured Report each, and heatmaps as Secondary Captures."""
    actors: int | None = None
    """Processes that hold the model; else one a GPU where --compute.gpu asks for GPUs, else one a CPU."""
    lake: str | None = None
    """The lake whose registry is meant, where MLFLOW_TRACKING_URI names none, and whose salt patients' hashes have."""
    compute: FlagConversionOff[ComputeConfig] = field(default_factory=ComputeConfig)
    """GPUs to use, and how many images may fail."""


def main() -> None:
    """Score, write the tables, print their heads and what could not be scored."""
    options = cli.options(__doc__, Options)
    root = lake.Lake(lake.resolve_root(options.lake))
    uri = tracking.uri(root)
    tracking.check_registry(uri)
    model = registered_model.describe(uri, options.model)
    found = score_files.find(options.images)
    lake.check_writable(lake.join(options.out, "probe"))
    print(f"{model.uri} at {tracking.public(uri)}: {len(found)} images in {options.images}", flush=True)
    session.check_versions()
    session.start()
    nodes.check_room({"GPU": 1} if options.compute.gpu else {"CPU": 1})
    session.check_nodes(uri, options.images, options.out)
    outputs = Outputs(model=f"{model.name}/{model.version}", heatmaps=options.heatmaps, dicom=options.dicom)
    request = Request(
        model=model,
        tracking_uri=uri,
        out=options.out,
        outputs=outputs,
        salt=root.salt(),
        compute=options.compute,
        actors=options.actors,
    )
    scored = score.score(request, found)
    console.show_scored(scored, options.images)
    failed = sum(bool(error) for error in scored.images["error"].to_pylist())
    print(f"{scored.images.num_rows - failed} images scored, {failed} could not be; {options.out}")
    if failed > options.compute.max_bad * scored.images.num_rows:
        raise QuarantineError(
            f"{failed} of {scored.images.num_rows} images could not be scored, at most {options.compute.max_bad:.1%} "
            f"may; their reasons stand in column `error` of {lake.join(options.out, 'images.parquet')}; mend the files "
            "and run the same command, or allow more with --max-bad"
        )


if __name__ == "__main__":
    cli.run(main)
