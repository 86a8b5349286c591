"""The artefact that each stage of a config makes, by fingerprint: what stages.py names, located in a lake."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from mammoflow import lake, tracking
from mammoflow.config import Config, TrunkConfig
from mammoflow.data import releases
from mammoflow.data.releases.listing import contents
from mammoflow.ensemble import pool
from mammoflow.errors import ConfigError
from mammoflow.lake import Artefact, Lake
from mammoflow.models import backbones
from mammoflow.pipeline.stages import STAGES
from mammoflow.registry import starting_points
from mammoflow.registry.registered_model import Registered
from mammoflow.registry.starting_points import Starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefacts:
    """The artefact of every stage of one config, whether the lake holds it yet or not."""

    config: Config
    lake: Lake
    phantoms: Artefact | None
    images: Artefact
    patches: Artefact
    starts: Starts | None
    """Whole-image classifiers to go on from, in the place of trunks."""
    external: Artefact | None
    """Their scores on these images, as they are; None where they are of no registered ensemble, or there are none."""
    recalibrated: Artefact | None
    """The same ensemble, registered with a cut-off and a calibration of these images."""
    trunks: dict[str, Artefact]
    """By backbone, the patch classifiers of the first round."""
    mined: dict[str, Artefact]
    """By backbone, the patches of a second round."""
    retrained: dict[str, Artefact]
    """By backbone, the patch classifiers of a second round."""
    two_step: Artefact | None
    """The two-step baseline on one of them; None where there are no trunks."""
    search: Artefact
    pool: list[dict[str, Any]]
    """Candidates of other searches that the ensemble may take, see results.pool."""
    ensemble: Artefact
    registered: Artefact
    evaluation: Artefact
    report: Artefact

    def of(self, stage: str) -> list[Artefact]:
        """Return the artefacts of a stage: one, or one a trunk, or none where a source replaces the phantoms."""
        found = getattr(self, stage)
        if found is None:
            return []
        return list(found.values()) if isinstance(found, dict) else [found]

    @property
    def classifiers(self) -> dict[str, Artefact]:
        """Return each backbone's patch classifier, of its last round: what whole-image classifiers are made from."""
        return self.trunks | self.retrained

    @property
    def source(self) -> str:
        """Return the folder of the release that the images come from."""
        return self.config.source or self.of("phantoms")[0].file("release")

    @property
    def begun(self) -> tuple[Starts, Registered]:
        """Return the registered ensemble that is begun from.

        Raises:
            ConfigError: there is none.
        """
        if self.starts is None or self.starts.registered is None:
            raise ConfigError(
                f"recipe {self.config.name!r} names no registered ensemble; give one with --start, such as "
                "models:/mammoflow@champion"
            )
        return self.starts, self.starts.registered

    def seconds(self) -> dict[str, float]:
        """Return how long each stage took when it was built [s]."""
        done = {stage: [item for item in self.of(stage) if item.done] for stage in STAGES}
        return {
            stage: round(max(float(item.summary()["seconds"]) for item in items), 1)
            for stage, items in done.items()
            if items
        }


def locate(config: Config, root: Lake) -> Artefacts:
    """Name the artefact of every stage: fingerprints of its own science fields and of its inputs'.

    Data and trunks are named by what they are, so that recipes on the same data share them.
    """
    name, seed = config.name, config.seed
    phantoms, images = _images(config, root)
    # What could not be used is known once the images are there; where some is mended later, all after them follows.
    left_out = images.summary().get("left_out") if images.done else None
    used = (images, left_out) if left_out else (images,)
    cut = f"{images.name}-{config.patches.set}"
    patches = root.artefact("patches", cut, *used, config.patches, seed)
    trunks, mined, retrained = _trunks(config, root, images, patches)
    begun = starting_points.find(config, root) if config.start else None
    heatmaps = None if begun else (trunks | retrained)[two_step_backbone(config)]
    two_step = heatmaps and root.artefact("two_step", name, *used, heatmaps, config.two_step, seed)
    external = root.artefact("external", name, *used, begun.identity) if begun and begun.registered else None
    recalibrated = external and root.artefact("recalibrated", name, external, config.ensemble, tracking.uri(root))
    on = (trunks | retrained).values() if begun is None else (*used, begun.identity)
    tops = {trunk.backbone: trunk.top_layers for trunk in config.trunks}
    search = root.artefact("search", name, *on, tops, config.image_training, config.search, seed)
    others = pool.find(config, root, images, search)
    chosen = root.artefact("ensemble", name, search, config.ensemble, *[row["run_id"] for row in others])
    registered = root.artefact("registered", name, chosen, tracking.uri(root))
    evaluated = root.artefact("evaluation", name, chosen)
    return Artefacts(
        config=config,
        lake=root,
        phantoms=phantoms,
        images=images,
        patches=patches,
        starts=begun,
        external=external,
        recalibrated=recalibrated,
        trunks=trunks,
        mined=mined,
        retrained=retrained,
        two_step=two_step,
        search=search,
        pool=others,
        ensemble=chosen,
        registered=registered,
        evaluation=evaluated,
        report=root.artefact("report", name, evaluated, registered),
    )


def two_step_backbone(config: Config) -> str:
    """Return the trunk whose patch classifier gives the heatmaps of the two-step baseline."""
    families = {trunk.backbone: backbones.find(trunk.backbone).family for trunk in config.trunks}
    first = next(iter(families))
    return config.two_step.backbone or next((name for name, family in families.items() if family == "Resnet"), first)


def _images(config: Config, root: Lake) -> tuple[Artefact | None, Artefact]:
    """Return the artefacts of phantoms, where there are any, and of images."""
    layout, seed = config.phantoms.layout, config.seed
    phantoms = None if config.source else root.artefact("phantoms", layout, config.phantoms, seed)
    data = config.dataset if config.source else f"phantoms-{layout}"
    size = f"{config.images.height}x{config.images.width}"
    splits = replace(config.splits, manifest=None)
    given = lake.fingerprint(lake.read_bytes(config.splits.manifest).hex()) if config.splits.manifest else None
    origin = phantoms or _identity(config, root)
    return phantoms, root.artefact("images", f"{data}-{size}", origin, config.images, splits, given, config.limit, seed)


ByBackbone = dict[str, Artefact]


def _trunks(
    config: Config, root: Lake, images: Artefact, patches: Artefact
) -> tuple[ByBackbone, ByBackbone, ByBackbone]:
    """Return the artefacts of the first round's classifiers, of the second's patches, and of its classifiers."""

    def trained(stage: str, trunk: TrunkConfig, on: Artefact) -> Artefact:
        """Return the artefact of a trunk's patch classifier that is trained on these patches."""
        name = backbones.slug(trunk.backbone)
        return root.artefact(stage, name, on, trunk.backbone, _weights(trunk), trunk.training, config.seed)

    trunks = {trunk.backbone: trained("trunks", trunk, patches) for trunk in config.trunks}
    again = {trunk.backbone: trunk for trunk in config.trunks if trunk.hard_examples}
    mined = {
        name: root.artefact("mined", backbones.slug(name), images, trunks[name], trunk.hard_examples)
        for name, trunk in again.items()
    }
    return trunks, mined, {name: trained("retrained", trunk, mined[name]) for name, trunk in again.items()}


def _weights(trunk: TrunkConfig) -> str | None:
    """Name a trunk's first weights by what they are: a name of the registry, or what a file holds."""
    if trunk.weights is None or not backbones.is_file(trunk.weights):
        return trunk.weights
    return lake.fingerprint(hashlib.sha256(lake.read_bytes(trunk.weights)).hexdigest())


def _identity(config: Config, root: Lake) -> str:
    """Fingerprint what a release holds, wherever it lies: its metadata, and the sizes of the files that are there."""
    listing = releases.read(config.dataset, str(config.source), root.salt)
    sizes = listing.files.sizes()
    return lake.fingerprint(config.dataset, [contents(exam, sizes) for exam in listing.exams.to_pylist()])
