"""A site of a made lake: two evaluated runs, one of them registered in a real registry, and a baseline."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from made_lake import BACKBONE, MadeLake, make
from made_report import baseline, scores
from registering import register

from mammoflow import lake
from mammoflow.config import EnsembleConfig
from mammoflow.ensemble import ensemble, selection
from mammoflow.facts.stages import EnsembleFacts, SearchFacts, TwoStepFacts
from mammoflow.lake import Artefact, Lake
from mammoflow.registry.registry import Registry
from mammoflow.site import runs, writing
from mammoflow.site.runs import Run
from mammoflow.site.writing import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeSite:
    """What the site is made from, and the site."""

    made: MadeLake
    root: Lake
    tracking_uri: str
    out: str
    site: Site
    said: list[str]

    def runs(self, say: Callable[[str], None] = print) -> list[Run]:
        """Return its runs, as the site finds them."""
        known = {each.key for each in Registry(self.tracking_uri).versions()}
        return runs.find(self.root, self.tracking_uri, known, say)

    def write(self, out: Path, cases: int) -> Site:
        """Write another site of it."""
        return writing.write(self.root, self.tracking_uri, str(out), cases, self.said.append)


def build(folder: Path) -> MadeSite:
    """Write the lake, register one of its runs, write the site."""
    made, root = make(folder), Lake(str(folder / "lake"))
    uri = f"sqlite:///{root.root}/mlflow/mlflow.db"
    made.search.finish(made.search.facts(SearchFacts), [made.images, made.trunk])
    _evaluated(root, made, "made", uri)
    _evaluated(root, made, "later <i>", None)
    held = baseline(made)
    two_step = root.artefact("two_step", "made", held.backbone)
    for split in ("val", "test"):
        lake.write_table(two_step.file(f"{split}.parquet"), held.test)
    ensemble.write_choices(two_step.file("choice.json"), {held.choice.rule: held.choice})
    two_step.finish(TwoStepFacts(backbone=BACKBONE, val_auc=held.choice.val_auc), [made.images, made.trunk])
    said: list[str] = []
    out = str(folder / "site")
    return MadeSite(
        made=made, root=root, tracking_uri=uri, out=out, site=writing.write(root, uri, out, 6, said.append), said=said
    )


def _evaluated(root: Lake, made: MadeLake, name: str, uri: str | None) -> Artefact:
    """Finish an ensemble and its evaluation, and register it where there is a registry."""
    val, test = scores(made, "val", 1), scores(made, "test", 2)
    by_rule = selection.choose_each(val, made.ranking, EnsembleConfig())
    frozen = by_rule["greedy" if uri else "best_of_kinds"]
    chosen = root.artefact("ensemble", name, made.search, name)
    lake.write_table(chosen.file("val.parquet"), val)
    ensemble.write_choices(chosen.file("ensembles.json"), by_rule)
    chosen.finish(EnsembleFacts(rule=frozen.rule, members=frozen.names, val_auc=frozen.val_auc), [made.search])
    evaluation = root.artefact("evaluation", name, chosen)
    lake.write_table(evaluation.file("test.parquet"), test)
    evaluation.finish({}, [chosen])
    if uri:
        version = register(made, uri, frozen, "mammoflow", val)
        registered = root.artefact("registered", name, chosen)
        registered.finish({"tracking_uri": uri, "name": "mammoflow", "version": version}, [chosen])
        other = replace(frozen, val_auc=0.5)  # a version whose run is not in this lake
        elsewhere = f"models:/mammoflow/{register(made, uri, other, 'mammoflow', val)}"
        Registry(uri).version(elsewhere).tag({"test_auc": "0.6100", "test_auc_by_patient": "0.5000 to 0.7000"})
    return evaluation
