"""Decode a release, split it by patient and cut labelled patches; without --source, draw phantoms first.

    mammoflow ingest cbis-s10-resnet50 --source /data/CBIS-DDSM --lake s3://bucket/lake
    ray job submit --working-dir . -- python jobs/ingest.py cbis-s10-resnet50 --source s3://bucket/CBIS-DDSM

--max-bad 0.02 limits the share of images in quarantine; --retry-quarantined decodes them again once they are repaired.

Reads    the release's metadata and DICOM files
Writes   images/ and patches/ in the lake, each with a quarantine of unusable files and reasons. Look at two files in
         patches/: contact_sheet.jpg, films with outlined lesions and patch frames; qc.html, counts, grey values beside
         the lake's other data sets, doubtful patches, quarantine
Next     mammoflow train-patch; where the source has only a test part, mammoflow score
"""

from mammoflow import cli, console
from mammoflow.commands import settings
from mammoflow.facts.stages import ImagesFacts
from mammoflow.pipeline import build, outcome
from mammoflow.reports import contact_sheet


def main() -> None:
    """Print the plan, build images and patches, print what came out."""
    config = cli.parse(
        __doc__,
        hidden=(
            "start",
            "transfer",
            "trunks",
            "image_training",
            "search",
            "ensemble",
            "two_step",
            "compute.gpu",
            "compute.cpus_per_worker",
            *settings.TRAINING,
            *settings.PLAN,
        ),
    )
    artefacts = build.ensure("patches", config)
    console.show_data(artefacts.images, artefacts.patches)
    console.show_quarantine([artefacts.images, artefacts.patches], config.source)
    print(f"contact sheet: {artefacts.patches.file(contact_sheet.FILE)}")
    print(f"qc page:       {outcome.write_qc(artefacts)}")  # again: it compares with the lake's other data sets
    if artefacts.images.facts(ImagesFacts).images["train"]:
        console.show_next("finetune" if config.start else "train-patch", config)
    else:
        console.show_scoring(config.ensemble.model_name, config.lake)
