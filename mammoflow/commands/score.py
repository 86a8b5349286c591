"""Score new images with a registered model: one row per file, readable or not. Never trains.

    mammoflow score --model models:/mammoflow@champion --images s3://bucket/new --out s3://bucket/scores
    ray job submit --working-dir . -- python jobs/score.py --images s3://bucket/new --out s3://bucket/scores

A second run scores only files that are new or changed, or that a kill left unscored.

Reads    DICOM, PNG, TIFF, PGM or JPEG files below a folder or URL
Writes   images.parquet: path, calibrated probability, decision at the operating point, members' scores, warnings,
         error; breasts.parquet and patients.parquet: the same over views; heatmaps/: PNG; with --dicom, dicom/
Next     nothing; read the tables with any Parquet reader
"""

from dataclasses import dataclass, field

from mammoflow import cli, console, lake, tracking
from mammoflow.cluster import nodes, session
from mammoflow.errors import QuarantineError
from mammoflow.registry.registry import Registry
from mammoflow.scoring import score, score_files
from mammoflow.scoring.score import Request, ScoringCompute
from mammoflow.scoring.score_files import Heatmaps, Outputs


@dataclass(frozen=True, kw_only=True)
class Options:
    """Images, model and output."""

    images: str
    """Folder or URL of the images, searched recursively."""
    out: str
    """Folder or URL for the scores of one version of one model."""
    model: str = "models:/mammoflow@champion"
    """URI of the registered model."""
    heatmaps: Heatmaps = "malignant"
    """Images that get a heatmap of what raised their score."""
    dicom: bool = False
    """Also write a DICOM Structured Report for each DICOM file, and its heatmap as a Secondary Capture."""
    actors: int | None = None
    """Processes that hold the model. Default: one per GPU with --compute.gpu, else one per CPU."""
    lake: str | None = None
    """Lake whose registry is used unless MLFLOW_TRACKING_URI is set, and whose salt hashes patient ids."""
    compute: ScoringCompute = field(default_factory=ScoringCompute)
    """CPUs and GPUs, and how many images may fail."""


def main() -> None:
    """Score, write the tables, print the most suspicious images and the failed ones."""
    options = cli.options(__doc__, Options)
    root = lake.Lake(lake.resolve_root(options.lake))
    uri = tracking.uri(root)
    tracking.check_registry(uri)
    model = Registry(uri).version(options.model).describe()
    files = score_files.find(options.images)
    lake.check_writable(lake.join(options.out, "probe"))
    print(f"{model.uri} at {tracking.public(uri)}: {len(files)} images in {options.images}", flush=True)
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
    scored = score.score(request, files)
    console.show_scored(scored, options.images)
    failed = sum(bool(error) for error in scored.images["error"].to_pylist())
    print(f"{scored.images.num_rows - failed} images scored, {failed} failed; {options.out}")
    if failed > options.compute.max_bad * scored.images.num_rows:
        raise QuarantineError(
            f"{failed} of {scored.images.num_rows} images could not be scored, at most {options.compute.max_bad:.1%} "
            f"may; the reasons are in column `error` of {lake.join(options.out, 'images.parquet')}; repair the files "
            "and run the same command, or allow more with --max-bad"
        )
