"""mammoflow in Python: load a registered model, open a lake, read the results of a run. No Ray; never trains.

Shape letters: N images, K members, H W rows and columns [px].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import torch

from mammoflow import lake, tracking
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble import profile as profiles
from mammoflow.ensemble.split_door import open_scores
from mammoflow.errors import LakeError
from mammoflow.facts.card import Card
from mammoflow.facts.stages import EnsembleFacts, EvaluationFacts, RegisteredFacts, SearchFacts
from mammoflow.lake import Artefact, Lake, stores
from mammoflow.registry.registry import Registry, Version
from mammoflow.rendering import pictures
from mammoflow.scoring import score_tables

T = TypeVar("T")

Image = str | Path | npt.NDArray[np.uint16]
"""A path or URL of a DICOM, PNG, TIFF, PGM or JPEG file; or uint16 (H, W) of any size, full range, air dark."""

_BATCH = 8


class Model:
    """A registered ensemble in this process."""

    def __init__(self, version: Version, device: str) -> None:
        self.uri = version.uri
        """URI of exactly this version."""
        self.card: Card = version.describe().card
        """Training data, validation figures, intended use and limits."""
        self._predictor = version.load().to(torch.device(device))

    def score(self, images: Image | Sequence[Image]) -> pd.DataFrame:
        """Score images.

        Returns:
            A row per image, in order: `path` (None for an array); `score`, the mean of the members [0-1];
            `probability`, the calibrated score [0-1]; `malignant`, whether the score reaches the cut-off; `warnings`,
            how the image differs from the training images; and the score of each member under its name.

        Raises:
            DecodeError: an image is unreadable. `mammoflow score` scores the others of a folder all the same.
            ConfigError: images of another type.
        """
        items = _list(images)
        scores: list[npt.NDArray[np.float64]] = [np.empty((0, len(self._predictor.ensemble.names)))]
        warnings = []
        for start in range(0, len(items), _BATCH):
            films = [self._predictor.read(item) for item in items[start : start + _BATCH]]
            warnings += [profiles.warnings(self._predictor.profile, *film) for film in films]
            scores.append(self._predictor.score(np.stack([pixels for pixels, _ in films])))
        table = self._predictor.table(np.concatenate(scores))
        paths = [None if isinstance(item, np.ndarray) else str(item) for item in items]
        table.insert(0, "path", pd.Series(paths, dtype=object))
        table.insert(4, "warnings", warnings)
        return table

    def heatmap(self, image: Image) -> npt.NDArray[np.uint8]:
        """Return an image beside the same image under the heatmap of its score, uint8 (H, W, 3) RGB.

        Raises:
            DecodeError: the image is unreadable.
        """
        pixels_HW, _ = self._predictor.read(image)
        members_1K = self._predictor.score(pixels_HW[None])
        score, probability, malignant = (one[0] for one in ensembles.decide(members_1K, self._predictor.ensemble))
        (evidence_uv,) = self._predictor.evidence(pixels_HW[None])
        row = {"laterality": None, "view": None, "model": self.uri.removeprefix("models:/")}
        caption = score_tables.caption({**row, "probability": probability, "malignant": malignant})
        mark = score_tables.PHANTOM_MARK if self.card.phantoms else ""
        return pictures.overlay(pixels_HW, evidence_uv * np.float32(score), caption, mark)[..., ::-1]


class OpenLake:
    """The tables of a lake, read-only."""

    def __init__(self, root: Lake) -> None:
        self.root = root.root
        """Folder or URL."""
        self._lake = root

    def artefacts(self, stage: str) -> list[str]:
        """Return the complete artefacts of a stage, `<stage>/<name>-<fingerprint>`, newest first."""
        return [item.key for item in self._newest(stage)]

    def images(self, artefact: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a row per image (schema.images) of an artefact, by default the newest, all but its pixels.

        Raises:
            LakeError: no such artefact, or one of another version of mammoflow.
        """
        return self._rows("images", artefact, columns)

    def patches(self, artefact: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a row per patch (schema.patches) of an artefact, by default the newest, all but its pixels.

        Raises:
            LakeError: no such artefact, or one of another version of mammoflow.
        """
        return self._rows("patches", artefact, columns)

    def scores(self, artefact: str | None = None) -> pa.Table:
        """Return a row per test image and model (schema.SCORES) of an evaluation, by default the newest.

        Raises:
            LakeError: no such artefact, or one of another version of mammoflow.
        """
        evaluated = self._find("evaluation", artefact)
        chosen = self._lake.at(evaluated.input_of("ensemble"))
        frozen = ensembles.read_choices(chosen.file("ensembles.json"))[chosen.facts(EnsembleFacts).rule]
        return open_scores(evaluated, "test", frozen)

    def _rows(self, stage: str, artefact: str | None, columns: Sequence[str] | None) -> pa.Table:
        item = self._find(stage, artefact)
        files = [stores.filesystem(url) for url in lake.iter_shards(item)]
        if not files:
            raise LakeError(f"{item.url} holds no rows; see its quarantine.parquet")
        rows = pads.dataset([path for _, path in files], filesystem=files[0][0], format="parquet")
        return rows.to_table(columns or [name for name in rows.schema.names if name != "pixels"])

    def _find(self, stage: str, artefact: str | None) -> Artefact:
        """Return an artefact by its key, or the newest of a stage."""
        items = self._newest(stage)
        matches = [item for item in items if artefact in (None, item.key)]
        if not matches:
            keys = ", ".join(item.key for item in items) or "none"
            raise LakeError(
                f"{stage} of {self.root} is asked for {artefact or 'the newest artefact'}, but the lake holds {keys}; "
                "name one of them, or run the command that builds it"
            )
        lake.check_versions(matches[:1])
        return matches[0]

    def _newest(self, stage: str) -> list[Artefact]:
        done = lake.list_complete(self._lake, stage)
        return sorted(done, key=lambda item: str(item.record().finished), reverse=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The results of a run, stage by stage; None where a stage was not run."""

    recipe: str
    search: SearchFacts
    """Ranking of the candidates, best validation AUC first."""
    ensemble: EnsembleFacts | None
    registered: RegisteredFacts | None
    evaluation: EvaluationFacts | None


def load(uri: str = "models:/mammoflow@champion", tracking_uri: str | None = None, *, device: str = "cpu") -> Model:
    """Load a registered model into this process.

    Args:
        uri: models:/<name>@<alias> or models:/<name>/<version>.
        tracking_uri: of the registry. Default: $MLFLOW_TRACKING_URI, else that of the default lake.
        device: cpu | cuda.

    Raises:
        TrackingError: no such registry, model, version or alias.
        LakeError: another version of mammoflow packed the model.
    """
    where = tracking_uri or tracking.uri(Lake(lake.resolve_root(None)))
    tracking.check_registry(where)
    return Model(Registry(where).version(uri), device)


def open_lake(path: str | Path | None = None) -> OpenLake:
    """Open a lake to read its tables.

    Args:
        path: folder or URL. Default: $MAMMOFLOW_LAKE, else ~/mammoflow/lake.

    Raises:
        LakeError: there is no such folder.
    """
    root = Lake(lake.resolve_root(None if path is None else str(path)))
    if not lake.exists(root.root):
        raise LakeError(
            f"the lake is {root.root}, but there is no such folder; give the folder that jobs got as --lake"
        )
    return OpenLake(root)


def read_run(path: str | Path | None, recipe: str) -> Run:
    """Read the results of the newest finished search of a recipe, and of what was built from it.

    Args:
        path: folder or URL of the lake; None for the default one.
        recipe: name of its config, such as demo.

    Raises:
        LakeError: no such lake, or no such run in it.
    """
    opened = open_lake(path)
    names = {item.name for item in opened._newest("search")}
    searches = [key for key in opened.artefacts("search") if key.startswith(f"search/{recipe}-")]
    if recipe not in names:
        raise LakeError(
            f"recipe is {recipe!r}, but {opened.root} holds finished searches of {sorted(names) or 'none'}; run "
            f"`mammoflow tune {recipe}` first"
        )
    search = opened._find("search", searches[0])
    ensemble = _made_from(opened, "ensemble", search)
    return Run(
        recipe=recipe,
        search=search.facts(SearchFacts),
        ensemble=_facts(ensemble, EnsembleFacts),
        registered=_facts(_made_from(opened, "registered", ensemble), RegisteredFacts),
        evaluation=_facts(_made_from(opened, "evaluation", ensemble), EvaluationFacts),
    )


def _made_from(opened: OpenLake, stage: str, item: Artefact | None) -> Artefact | None:
    """Return the newest artefact of a stage that was made from another."""
    made = opened._newest(stage) if item else []
    return next((one for one in made if item and item.key in one.record().inputs), None)


def _facts(item: Artefact | None, kind: type[T]) -> T | None:
    return None if item is None else item.facts(kind)


def _list(images: Image | Sequence[Image]) -> list[Image]:
    """Return one image, a sequence of images, or an array (N, H, W) as a list."""
    if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim != 3):
        return [images]
    return list(images)
