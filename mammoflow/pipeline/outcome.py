"""What the artefacts of a run say together: its figures, its report, the pages of its data. No Ray of its own."""

from typing import Any

from mammoflow import lake, tracking
from mammoflow.ensemble import ensemble, evaluation, selection
from mammoflow.lake import Artefact
from mammoflow.pipeline.graph import Artefacts
from mammoflow.pipeline.stages import FIGURES, REPRODUCTION, TRANSFER
from mammoflow.registry.registry import Registry
from mammoflow.reports import contact_sheet, qc, report, summary
from mammoflow.reports.inputs import PHANTOM_MARK, Baseline


def load_ensemble(a: Artefacts) -> ensemble.Ensemble:
    """Return the ensemble that was chosen on validation by the config's rule."""
    return load_ensembles(a)[a.config.ensemble.rule]


def load_ensembles(a: Artefacts) -> dict[str, ensemble.Ensemble]:
    """Return what each rule chose on validation."""
    by_rule = lake.read_json(a.ensemble.file("ensembles.json"))
    return {rule: ensemble.from_dict(values) for rule, values in by_rule.items()}


def transferred(a: Artefacts) -> list[dict[str, Any]]:
    """Return what a registered ensemble of other data reaches on these: as it is, and recalibrated for them.

    `cutoff` and `calibration` name what was used; the rest is as `summary.at_site` gives it.
    """
    scored, (_, about) = a.one("external"), a.begun
    val, test = (lake.read_table(scored.file(f"{split}.parquet")) for split in ("val", "test"))
    fresh = selection.recalibrate(val, about.ensemble, a.config.ensemble)
    ways = {"as registered": about.ensemble, "of this site": fresh}
    return [{"calibrated": name, **summary.at_site(test, each)} for name, each in ways.items()]


def baseline(a: Artefacts) -> dict[str, Any]:
    """Return what the two-step baseline reaches on test, as `summary.at_site` gives it, and its `backbone`."""
    held = _held_baseline(a.one("two_step"))
    return {"backbone": held.backbone, **summary.at_site(held.test, held.choice)}


def summarise(a: Artefacts) -> dict[str, Any]:
    """Gather the figures of a finished run, as summary.json holds them."""
    return summary.summarise(
        recipe=a.config.name,
        images=a.images.summary(),
        patches=a.patches.summary(),
        patch_accuracy=a.evaluation.summary()["patch_accuracy"],
        patch_val_accuracy={name: item.summary()["val_accuracy"] for name, item in a.classifiers.items()},
        ranking=ranking(a),
        val_scores=lake.read_table(a.ensemble.file("val.parquet")),
        test_scores=lake.read_table(a.evaluation.file("test.parquet")),
        chosen=load_ensemble(a),
        registered=f"models:/{a.config.ensemble.model_name}@champion",
        seconds=a.seconds(),
    )


def tag_test_figures(a: Artefacts) -> None:
    """Write what the ensemble reached on test beside its registered version."""
    found = summary.at_site(lake.read_table(a.evaluation.file("test.parquet")), load_ensemble(a))
    low, high = found["ci95"]
    tags = {f"test_{name}": f"{found[name]:.4f}" for name in ("auc", "sensitivity", "specificity")}
    tags["test_ci95"] = f"{low:.4f} to {high:.4f}"
    model = a.registered.summary()
    Registry(tracking.uri(a.lake)).version(f"models:/{model['name']}/{model['version']}").tag(tags)


def write_qc(a: Artefacts) -> str:
    """Write the contact sheet and the page that show what ingest made, and return where the page lies."""
    contact_sheet.write(a.images, a.patches, a.config.patches.side, "" if a.config.source else PHANTOM_MARK)
    return qc.write(a.config, a.images, a.patches)


def finished(a: Artefacts) -> dict[str, str]:
    """Return the model folders of the candidates that went through both stages, and of those from elsewhere."""
    ranking = a.search.summary()["ranking"]
    own = {row["name"]: a.search.file("candidates", row["name"], "best") for row in ranking if row["survived"]}
    return own | {row["name"]: row["folder"] for row in a.pool}


def ranking(a: Artefacts) -> list[dict[str, Any]]:
    """Return what is known of every candidate that may be scored: of the search, and from elsewhere."""
    return [*a.search.summary()["ranking"], *a.pool]


def _held_baseline(made: Artefact) -> Baseline:
    """Return the two-step baseline that an artefact holds."""
    choice = ensemble.from_dict(lake.read_json(made.file("choice.json")))
    return Baseline(backbone=made.summary()["backbone"], choice=choice, test=lake.read_table(made.file("test.parquet")))


def _transfer(a: Artefacts) -> dict[str, Any] | None:
    """Return what came of the registered version on other data, of the latest that the lake holds."""
    model = a.registered.summary()
    return _newest(a, TRANSFER, "model", f"models:/{model['name']}/{model['version']}")


def _newest(a: Artefacts, stage: str, key: str, value: str) -> dict[str, Any] | None:
    """Return what the latest finished artefact of several configs holds that is of this run; None without one."""
    done = lake.list_complete(a.lake, stage)
    newest = sorted(done, key=lambda item: item.record().finished, reverse=True)
    held = (lake.read_json(item.file(FIGURES)) for item in newest)
    return next((dict(each) for each in held if each[key] == value), None)


def write_report(a: Artefacts) -> str:
    """Write the report of a finished run and return where it lies."""
    val, chosen = lake.read_table(a.ensemble.file("val.parquet")), load_ensemble(a)
    inputs = report.ReportInputs(
        config=a.config,
        images=a.images,
        patches=a.patches,
        trunks=a.classifiers,
        search=a.search,
        val_scores=val,
        test_scores=lake.read_table(a.evaluation.file("test.parquet")),
        ensemble=chosen,
        ensembles=load_ensembles(a),
        singles=selection.choose_singles(val, ranking(a), a.config.ensemble),
        folders=finished(a),
        facts=evaluation.image_facts(a.images, "test", ensemble=chosen),
        baseline=next((_held_baseline(item) for item in a.of("two_step") if item.done), None),
        transfer=_transfer(a),
        reproduction=_newest(a, REPRODUCTION, "search", a.search.fingerprint),
        registered=a.registered.summary(),
        patch_accuracy=a.evaluation.summary()["patch_accuracy"],
        seconds=a.seconds(),
    )
    return report.write(inputs, a.report.file("report.html"))
