r"""Decode a release, split it by patient and cut labelled patches; without --source, draw phantoms first.

    ray job submit --working-dir . -- python jobs/ingest.py cbis-s10-resnet50 \
        --source /data/CBIS-DDSM --lake s3://bucket/lake

--max-bad 0.02 is the share of images that may go to quarantine; --retry-quarantined decodes these again, once mended.

Reads    the release's metadata and DICOM files
Writes   images/ and patches/ in the lake, each with a quarantine of what could not be used and why; in patches/ also
         contact_sheet.jpg: films with outlined lesions and the frames of their patches, and qc.html: counts, grey
         values beside the lake's other data sets, doubtful patches, quarantine; both to be looked at
Next     jobs/train_patch.py; where the source holds a test part only, jobs/score.py
"""

from mammoflow import cli, console, recipes
from mammoflow.pipeline import build, outcome
from mammoflow.reports import contact_sheet


def main() -> None:
    """Print the plan, build images and patches, print what came out."""
    config = cli.parse(__doc__, recipes.ALL)
    artefacts = build.ensure("patches", config)
    console.show_data(artefacts.images, artefacts.patches)
    console.show_quarantine([artefacts.images, artefacts.patches], config.source)
    print(f"contact sheet: {artefacts.patches.file(contact_sheet.FILE)}")
    print(f"qc page:       {outcome.write_qc(artefacts)}")  # anew: other data sets may have come beside this one
    if artefacts.images.summary()["images"]["train"]:
        console.show_next("finetune" if config.start else "train_patch", config)
    else:
        console.show_scoring(config.ensemble.model_name, config.lake)


if __name__ == "__main__":
    cli.run(main)
