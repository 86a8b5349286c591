"""The stages that make images and patches."""

from dataclasses import replace
from typing import TYPE_CHECKING

from mammoflow import lake
from mammoflow.config import Config
from mammoflow.facts.stages import ImagesFacts, PatchesFacts, PhantomsFacts
from mammoflow.lake import Artefact, Lake
from mammoflow.pipeline.stages.stage import Built, Stage

if TYPE_CHECKING:
    from mammoflow.pipeline.graph import Artefacts


def _locate_phantoms(a: "Artefacts") -> Artefact | None:
    if a.config.source:
        return None
    phantoms = a.config.phantoms
    return a.lake.artefact("phantoms", phantoms.layout, phantoms=phantoms, seed=a.config.seed)


def _build_phantoms(a: "Artefacts") -> Built:
    from mammoflow.data import ingest

    out = a.one("phantoms")
    yield out, ingest.draw_phantoms(a.config, out)


def _locate_images(a: "Artefacts") -> Artefact:
    config = a.config
    data = config.dataset if config.source else f"phantoms-{config.phantoms.layout}"
    manifest = config.splits.manifest
    return a.lake.artefact(
        "images",
        f"{data}-{config.images.height}x{config.images.width}",
        release=_identity(config, a.lake) if config.source else a.one("phantoms"),
        images=config.images,
        splits=replace(config.splits, manifest=None),
        manifest=lake.fingerprint(lake.read_bytes(manifest).hex()) if manifest else None,
        limit=config.limit,
        seed=config.seed,
    )


def _identity(config: Config, root: Lake) -> str:
    """Fingerprint a release's content, wherever it lies: its metadata, and the sizes of the files that exist."""
    from mammoflow.data import releases
    from mammoflow.data.releases.listing import contents

    listing = releases.read(config.dataset, str(config.source), root.salt)
    sizes = listing.files.sizes()
    return lake.fingerprint(config.dataset, [contents(exam, sizes) for exam in listing.exams.to_pylist()])


def _build_images(a: "Artefacts") -> Built:
    from mammoflow.data import ingest

    yield a.images, ingest.decode_images(a.config, a.source, a.images, salt=a.lake.salt)


def _locate_patches(a: "Artefacts") -> Artefact:
    name, patches = f"{a.images.name}-{a.config.patches.set}", a.config.patches
    return a.lake.artefact("patches", name, *a.usable, patches=patches, seed=a.config.seed)


def _build_patches(a: "Artefacts") -> Built:
    from mammoflow.data import ingest
    from mammoflow.pipeline import outcome

    facts = ingest.cut_patches(a.config, a.images, a.patches)
    outcome.write_qc(a)
    yield a.patches, facts


STAGES = (
    Stage(
        name="phantoms",
        job="ingest",
        facts=PhantomsFacts,
        locate=_locate_phantoms,
        build=_build_phantoms,
        start="not read",
    ),
    Stage(
        name="images",
        needs=("phantoms",),
        job="ingest",
        facts=ImagesFacts,
        locate=_locate_images,
        build=_build_images,
        decides=True,  # which images could not be used
        start="not read",
    ),
    Stage(
        name="patches",
        needs=("images",),
        job="ingest",
        facts=PatchesFacts,
        locate=_locate_patches,
        build=_build_patches,
        start="not read",
    ),
)
