"""The whole paper in one go: everything behind its tables 1-4 and figures 2-4, planned, run, and shown in one report.

Each step is a run of the pipeline of its own, so that a rerun does what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mammoflow import lake, recipes
from mammoflow.config import ComputeConfig, Config, SplitConfig
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble import evaluation
from mammoflow.ensemble.split_door import open_scores
from mammoflow.facts import codec
from mammoflow.facts.published import CandidateFigures, PatchRow, Reproduction
from mammoflow.facts.stages import RegisteredFacts, SearchFacts, TrunkFacts
from mammoflow.lake import Artefact
from mammoflow.pipeline import build, outcome, stages, transfer
from mammoflow.pipeline.estimates import Estimate, of_config, of_transfer
from mammoflow.pipeline.graph import Artefacts
from mammoflow.reports import paper_tables

_PATIENTS = {"demo": 110, "smoke": 24}
_SIZES = {"demo": (10, 20, 30, 40, 60), "smoke": (14,)}
_EPOCHS = {"demo": 12, "smoke": 1}
"""Of the transfer between phantoms: patients drawn as INbreast, numbers of them to train on, epochs."""
_CHAMPION = "models:/mammoflow@champion"  # stands for the version that the main run registers


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run, in this order."""

    main: Config
    """Tables 2 and 3 but for S1, the ensemble, figures 2 to 4, and the two-step baseline."""
    other_set: Config
    """The whole-image row of Table 2 on the patch set S1."""
    patch_classifiers: tuple[Config, ...]
    """The rows of Table 1: one trunk each; those of `main` and `other_set` are among them."""
    transfer: Config | None
    """Table 4, begun from the ensemble of `main`; None without such data."""

    def estimates(self) -> list[Estimate]:
        """Return what each step would cost before anything is decoded; what another step trains counts there alone."""
        shared = {(config.patches, trunk) for config in (self.main, self.other_set) for trunk in config.trunks}
        shared = {(patches, replace(trunk, top_layers=())) for patches, trunk in shared}
        alone = [
            config
            for config in self.patch_classifiers
            if (config.patches, replace(config.trunks[0], top_layers=())) not in shared
        ]
        there = self.transfer
        sizes = there.transfer if there else ()
        return [
            of_config("tables 2 and 3, figures 2-4, baseline", self.main),
            of_config("S1 row of Table 2", self.other_set),
            *(of_config("row of Table 1", config, patches_alone=True) for config in alone),
            *(of_transfer(f"Table 4, {size} patients", there, self.main, size) for size in sizes if there),
        ]


def of_paper(source: str, inbreast: str | None, root: str | None, compute: ComputeConfig) -> Plan:
    """Return the paper's settings.

    Args:
        source: folder of CBIS-DDSM.
        inbreast: folder of INbreast; without it Table 4 is left out.
        root: the lake.
        compute: workers, GPUs.
    """

    def here(config: Config, folder: str = source) -> Config:
        """Return a recipe on this data, in this lake."""
        dataset = "cbis_ddsm" if config.dataset == "auto" else config.dataset
        return replace(config, source=folder, dataset=dataset, lake=root, compute=compute)

    main = here(recipes.cbis_s10_tables())
    rows = (recipes.cbis_s1_resnet50_random(), recipes.cbis_s1_resnet50(), recipes.cbis_s10_resnet50_random())
    return Plan(
        main=main,
        other_set=here(recipes.cbis_s1_resnet50()),
        patch_classifiers=(*map(here, rows), *(replace(main, trunks=(trunk,)) for trunk in main.trunks)),
        transfer=here(recipes.ALL["inbreast"](), inbreast) if inbreast else None,
    )


def of_phantoms(root: str | None, scale: str = "demo") -> Plan:
    """Return the same on phantoms, at the scale of a recipe: it shows that all of it works, and nothing of patients.

    Args:
        root: the lake.
        scale: demo (within an hour on 2 cores) | smoke (within minutes; learns next to nothing).
    """
    start = replace(recipes.ALL[scale](), lake=root)
    first, *others = start.trunks
    if scale == "demo":  # its four kinds are all-convolutional; the paper has heatmaps and FC layers too
        first = replace(first, top_layers=(*first.top_layers, "heatmap,[32-32-64]x1", "fc-pool2-32-16"))
    every = replace(start.search, survivors="all")
    main = replace(start, name=f"reproduce-{scale}", trunks=(first, *others), search=every)
    one = replace(first, top_layers=first.top_layers[:1])
    set_one = replace(main, name=f"{main.name}-s1", trunks=(one,), patches=replace(main.patches, set="S1"))
    return Plan(
        main=main,
        other_set=set_one,
        patch_classifiers=(set_one, *(replace(main, trunks=(trunk,)) for trunk in main.trunks)),
        transfer=_phantom_transfer(main, scale),
    )


def _phantom_transfer(main: Config, scale: str) -> Config:
    """Return the transfer to phantoms as INbreast has films: another intensity profile, other counts.

    BatchNorm keeps its statistics: those of batches of four films cost more on validation than training brought.
    """
    first, second = main.image_training.stages
    stages = (replace(first, epochs=0), replace(second, epochs=_EPOCHS[scale], batch_norm="frozen"))
    return replace(
        main,
        name=f"{main.name}-transfer",
        phantoms=replace(main.phantoms, layout="inbreast", patients=_PATIENTS[scale]),
        splits=SplitConfig(protocol="70-30", val=0.3),
        trunks=(),
        start=_CHAMPION,
        transfer=_SIZES[scale],
        image_training=replace(main.image_training, stages=stages),
        ensemble=replace(main.ensemble, model_name=f"{main.ensemble.model_name}-site"),
    )


def run(plan: Plan) -> str:
    """Do all of it, and return where the report lies.

    Raises:
        MammoflowError: as in `pipeline.ensure`.
    """
    main = build.ensure("report", plan.main)
    build.ensure("two_step", plan.main)
    other = build.ensure("evaluation", plan.other_set)
    _gather(main, other, [build.ensure("retrained", config) for config in plan.patch_classifiers])
    if plan.transfer:
        model = main.registered.facts(RegisteredFacts)
        transfer.run(replace(plan.transfer, start=f"models:/{model.name}/{model.version}"))
    return outcome.write_report(main)  # again, with everything built since


def _gather(main: Artefacts, other: Artefacts, trained: Sequence[Artefacts]) -> Artefact:
    """Score the patch classifiers of Table 1 on test, all members and cut-offs being frozen, and keep its rows."""
    classifiers = [item for each in trained for item in each.classifiers.values()]
    made_from = [main.search, other.evaluation, *classifiers]
    out = main.lake.artefact(stages.REPRODUCTION, main.config.name, *made_from)
    if not out.done:
        figures = Reproduction(
            search=main.search.fingerprint,
            patch_classifiers=tuple(_patch_row(main, rows) for rows in trained),
            patch_set=other.config.patches.set,
            other_set=_image_rows(other),
        )
        lake.write_bytes(out.file(stages.FIGURES), codec.to_json(figures))
        out.finish({"rows": len(figures.patch_classifiers)}, made_from)
    return out


def _patch_row(main: Artefacts, trained: Artefacts) -> PatchRow:
    """Return a row of Table 1; `main` holds the frozen ensemble that opens the test split."""
    (trunk,) = trained.config.trunks
    classifier, patch_set = trained.classifiers[trunk.backbone], trained.config.patches.set
    return PatchRow(
        backbone=trunk.backbone,
        weights=trunk.weights,
        patch_set=patch_set,
        test=evaluation.patch_accuracy(
            classifier.file("best"),
            trained.patches,
            "test",
            trained.config.compute,
            ensemble=outcome.load_ensemble(main),
        ),
        best_epoch=classifier.facts(TrunkFacts).best_epoch,
        paper=paper_tables.find_patch(trunk.backbone, trunk.weights, patch_set),
    )


def _image_rows(other: Artefacts) -> tuple[CandidateFigures, ...]:
    """Return the whole-image rows of another patch set."""
    chosen, patch_set = outcome.load_ensemble(other), other.config.patches.set
    test = ensembles.summarise(open_scores(other.evaluation, "test", chosen))
    return tuple(
        CandidateFigures(
            ranked=row, test=test.get(row.name), paper=paper_tables.find(row.backbone, patch_set, row.top_layers)
        )
        for row in other.search.facts(SearchFacts).ranking
    )
