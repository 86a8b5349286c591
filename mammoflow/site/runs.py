"""The finished runs of a lake, whatever configs made them: found by what artefacts say of their inputs. No Ray."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mammoflow import lake, tracking
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.lake import Artefact, Lake
from mammoflow.reports.inputs import PHANTOM_MARK

UNKNOWN = "whether of phantoms is not known here"
"""Mark of figures whose images are not in the lake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An evaluated run: its artefacts, from images to test scores."""

    images: Artefact
    """Decoded images."""
    search: Artefact
    """Whole-image candidates and their ranking."""
    chosen: Artefact
    """The ensemble, chosen on validation, and validation scores."""
    evaluation: Artefact
    """Test scores."""
    version: str
    """`<name>/<version>` in the registry; empty where it was not registered."""
    mark: str
    """What every figure must say of its data: of phantoms, that they are; else nothing."""

    @property
    def key(self) -> str:
        """Return the name of its folder in the site."""
        return self.evaluation.key.partition("/")[2]

    @property
    def ranking(self) -> list[dict[str, Any]]:
        """Return the candidates as the search ranked them."""
        return list(self.search.summary()["ranking"])

    def scores(self, split: str) -> pa.Table:
        """Return schema.SCORES of the finished candidates on val or test."""
        made = {"val": self.chosen, "test": self.evaluation}[split]
        return lake.read_table(made.file(f"{split}.parquet"))

    def ensembles(self) -> dict[str, Ensemble]:
        """Return what each rule chose, the frozen choice first."""
        held, summary = lake.read_json(self.chosen.file("ensembles.json")), self.chosen.summary()
        by_rule = {rule: ensembles.from_dict(values) for rule, values in held.items()}
        return dict(sorted(by_rule.items(), key=lambda each: not _is_frozen(each[0], each[1], summary)))


def _is_frozen(rule: str, chosen: Ensemble, frozen: dict[str, Any]) -> bool:
    """Tell whether an ensemble is the frozen one, whose rule earlier versions did not write down."""
    if "rule" in frozen:
        return bool(rule == frozen["rule"])
    return bool((list(chosen.names), chosen.val_auc) == (frozen["members"], frozen["val_auc"]))


def mark_of(images: Artefact) -> str:
    """Return what figures of these images must say of them: of phantoms, that they are; else nothing."""
    if not images.done:
        return UNKNOWN
    return PHANTOM_MARK if input_of(images, "phantoms") else ""


def find(root: Lake, tracking_uri: str, versions: Collection[str], say: Callable[[str], None]) -> list[Run]:
    """Return the evaluated runs of a lake, by name.

    Args:
        root: the lake.
        tracking_uri: of the registry.
        versions: `<name>/<version>` of all that it holds now; runs of any other count as not registered.
        say: told of runs that can't be shown, and why.

    Raises:
        LakeError: the lake can't be listed.
    """
    of_ensemble = {
        input_of(item, "ensemble"): version
        for item in lake.list_complete(root, "registered")
        if (version := _version(item, tracking_uri)) in versions
    }
    found = []
    for evaluation in lake.list_complete(root, "evaluation"):
        chain = [evaluation]
        for stage in ("ensemble", "search", "images"):
            key = input_of(chain[-1], stage)
            chain.append(root.at(key))
            if not chain[-1].done:
                say(f"  {evaluation.key} is not shown: its {stage} ({key or 'not recorded'}) is not in the lake")
                break
        else:
            _, chosen, search, images = chain
            made = {"images": images, "search": search, "chosen": chosen, "evaluation": evaluation}
            found.append(Run(**made, version=of_ensemble.get(chosen.key, ""), mark=mark_of(images)))
    return found


def _version(registered: Artefact, tracking_uri: str) -> str:
    """Return `<name>/<version>`; empty where it was registered on another server."""
    made = registered.summary()
    here = made["tracking_uri"] == tracking.public(tracking_uri)
    return f"{made['name']}/{made['version']}" if here else ""


def input_of(artefact: Artefact, stage: str) -> str:
    """Return the key of the artefact of a stage that another was made from; empty where it is not recorded."""
    return next((key for key in artefact.record().inputs if key.startswith(f"{stage}/")), "")
