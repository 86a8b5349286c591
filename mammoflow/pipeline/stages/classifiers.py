"""The stages that train: patch classifiers, the two-step baseline, whole-image classifiers."""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from mammoflow import lake
from mammoflow.config import Config, TrunkConfig
from mammoflow.facts.stages import MinedFacts, SearchFacts, TrunkFacts, TwoStepFacts
from mammoflow.lake import Artefact
from mammoflow.pipeline.stages.stage import Built, Stage

if TYPE_CHECKING:
    from mammoflow.pipeline.graph import Artefacts


def _locate_trunks(a: "Artefacts") -> Mapping[str, Artefact]:
    return {trunk.backbone: _trained(a, "trunks", trunk, a.patches) for trunk in a.config.trunks}


def _trained(a: "Artefacts", stage: str, trunk: TrunkConfig, patches: Artefact) -> Artefact:
    """Return the artefact of a patch classifier that is trained on these patches."""
    from mammoflow.models import backbones

    return a.lake.artefact(
        stage,
        backbones.slug(trunk.backbone),
        patches,
        backbone=trunk.backbone,
        weights=_weights(trunk),
        training=trunk.training,
        seed=a.config.seed,
    )


def _weights(trunk: TrunkConfig) -> str | None:
    """Identify a trunk's initial weights: a name of the registry, or the content of a file."""
    from mammoflow.models import backbones

    if trunk.weights is None or not backbones.is_file(trunk.weights):
        return trunk.weights
    return lake.fingerprint(hashlib.sha256(lake.read_bytes(trunk.weights)).hexdigest())


def _build_trunks(a: "Artefacts") -> Built:
    from mammoflow.training import trunks

    missing = {name: item for name, item in a.trunks.items() if not item.done}
    trained = trunks.train(a.config, a.lake, a.images, a.patches, missing)
    return [(missing[name], facts) for name, facts in trained.items()]


def _locate_mined(a: "Artefacts") -> Mapping[str, Artefact]:
    return {
        trunk.backbone: a.lake.artefact(
            "mined", a.trunks[trunk.backbone].name, a.images, a.trunks[trunk.backbone], mined=trunk.hard_examples
        )
        for trunk in a.config.trunks
        if trunk.hard_examples
    }


def _build_mined(a: "Artefacts") -> Built:
    from mammoflow.training import mining

    for trunk in a.config.trunks:
        name = trunk.backbone
        if trunk.hard_examples and not a.mined[name].done:
            yield a.mined[name], mining.mine(a.config, trunk, a.images, a.trunks[name], a.mined[name])


def _locate_retrained(a: "Artefacts") -> Mapping[str, Artefact]:
    return {
        trunk.backbone: _trained(a, "retrained", trunk, a.mined[trunk.backbone])
        for trunk in a.config.trunks
        if trunk.hard_examples
    }


def _build_retrained(a: "Artefacts") -> Built:
    from mammoflow.training import trunks

    missing = {name: item for name, item in a.retrained.items() if not item.done}
    trained = trunks.train(a.config, a.lake, a.images, a.patches, missing, mined=a.mined)
    return [(missing[name], facts) for name, facts in trained.items()]


def two_step_backbone(config: Config) -> str:
    """Return the trunk whose patch classifier gives the heatmaps of the two-step baseline."""
    from mammoflow.models import backbones

    families = {trunk.backbone: backbones.find(trunk.backbone).family for trunk in config.trunks}
    first = next(iter(families))
    return config.two_step.backbone or next((name for name, family in families.items() if family == "Resnet"), first)


def _locate_two_step(a: "Artefacts") -> Artefact | None:
    if a.starts:
        return None
    heatmaps = a.classifiers[two_step_backbone(a.config)]
    settings, seed = a.config.two_step, a.config.seed
    return a.lake.artefact("two_step", a.config.name, *a.usable, heatmaps, two_step=settings, seed=seed)


def _build_two_step(a: "Artefacts") -> Built:
    from mammoflow.ensemble import ensemble, forest, two_step

    out, backbone, compute = a.one("two_step"), two_step_backbone(a.config), a.config.compute
    folder, settings = a.classifiers[backbone].file("best"), a.config.two_step
    fitted = two_step.fit(folder, a.images, settings, compute, seed=a.config.seed)
    lake.write_bytes(out.file("forest.safetensors"), forest.to_bytes(fitted))
    score = partial(two_step.score_split, fitted, folder, a.images)
    val = score("val", settings, compute)
    frozen = two_step.choose(val, backbone, a.config.ensemble)  # before the first test image is read
    test = score("test", settings, compute, frozen=frozen)
    for split, scores in (("val", val), ("test", test)):
        lake.write_table(out.file(f"{split}.parquet"), scores)
    ensemble.write_choices(out.file("choice.json"), {frozen.rule: frozen})
    yield out, TwoStepFacts(backbone=backbone, val_auc=frozen.val_auc)


def _locate_search(a: "Artefacts") -> Artefact:
    config = a.config
    inputs = a.usable if a.starts else tuple(a.classifiers.values())
    return a.lake.artefact(
        "search",
        config.name,
        *inputs,
        **({"start": a.starts.identity} if a.starts else {}),
        top_layers={trunk.backbone: trunk.top_layers for trunk in config.trunks},
        image_training=config.image_training,
        search=config.search,
        seed=config.seed,
    )


def _build_search(a: "Artefacts") -> Built:
    from mammoflow import tracking
    from mammoflow.registry import starting_points
    from mammoflow.rendering import marks
    from mammoflow.search import PICTURE, charts, tuning

    begun = starting_points.fetch(a.starts, a.search) if a.starts else None
    facts = tuning.search(a.config, a.lake, a.images, a.classifiers, a.search, begun)
    picture = charts.search(facts.ranking, marks.mark_of(a.images), "png")
    lake.write_bytes(a.search.file(PICTURE), picture)
    tracking.Tracker.open(a.lake, tracking.SEARCHES).attach(facts.run_id, PICTURE, picture)
    yield a.search, facts


STAGES = (
    Stage(
        name="trunks",
        needs=("patches",),
        job="train_patch",
        facts=TrunkFacts,
        locate=_locate_trunks,
        build=_build_trunks,
        runs_models=True,
    ),
    Stage(
        name="mined",
        needs=("images", "trunks"),
        job="train_patch",
        facts=MinedFacts,
        locate=_locate_mined,
        build=_build_mined,
        runs_models=True,
    ),
    Stage(
        name="retrained",
        needs=("patches", "mined"),
        job="train_patch",
        facts=TrunkFacts,
        locate=_locate_retrained,
        build=_build_retrained,
        runs_models=True,
    ),
    Stage(
        name="two_step",
        needs=("images", "trunks", "retrained"),
        job="two_step",
        facts=TwoStepFacts,
        locate=_locate_two_step,
        build=_build_two_step,
        runs_models=True,
    ),
    Stage(
        name="search",
        needs=("images", "trunks", "retrained"),
        job="tune_top_layers",
        facts=SearchFacts,
        locate=_locate_search,
        build=_build_search,
        runs_models=True,
        decides=True,  # the candidates of other searches beside which its own stand
    ),
)
