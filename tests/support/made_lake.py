"""A small finished run made by hand: blobs on noise as films, untrained models, real files in the lake's layout."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from mammoflow import lake
from mammoflow.config import ComputeConfig, Config, ImageConfig, PatchConfig, TrunkConfig
from mammoflow.data import outlines
from mammoflow.facts.stages import RankingRow, SearchFacts
from mammoflow.lake import Artefact, Lake, schema
from mammoflow.models import classifiers, model_files
from mammoflow.models.classifiers import PatchSpec
from mammoflow.models.top_kinds import parse

BACKBONE = "resnet10_narrow"
TOP_LAYERS = ("16x1,8x1", "[8-8-16]x1,[8-8-16]x1", "8x1,8x1")
HEIGHT, WIDTH, SIDE = 160, 128, 32
FILMS = {"train": 12, "val": 10, "test": 11}


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeLake:
    """What a run would have left behind."""

    config: Config
    images: Artefact
    patches: Artefact
    trunk: Artefact
    search: Artefact

    @property
    def folders(self) -> dict[str, str]:
        return {row.name: self.search.file("candidates", row.name, "best") for row in self.ranking if row.survived}

    @property
    def ranking(self) -> tuple[RankingRow, ...]:
        return self.search.facts(SearchFacts).ranking


def make(root: Path) -> MadeLake:
    """Write every artefact up to the search; about a second."""
    config = Config(
        name="made",
        images=ImageConfig(height=HEIGHT, width=WIDTH),
        patches=PatchConfig(side=SIDE),
        trunks=(TrunkConfig(backbone=BACKBONE, weights=None, top_layers=TOP_LAYERS),),
        compute=ComputeConfig(workers=1),
    )
    store = Lake(str(root / "lake"))
    made = MadeLake(
        config=config,
        images=store.artefact("images", "made", config.images),
        patches=store.artefact("patches", "made", config.patches),
        trunk=store.artefact("trunks", "made", BACKBONE),
        search=store.artefact("search", "made", TOP_LAYERS),
    )
    rng = np.random.default_rng(0)
    films = _write_images(made.images, rng)
    _write_patches(made.patches, films, rng)
    _write_models(made)
    return made


def film(rng: np.random.Generator, malignant: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return uint16 (H, W) pixels of tissue and a bright blob, and the blob's mask."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, WIDTH)), (0, 0), 4)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    tissue = (columns / WIDTH) ** 2 + ((rows - HEIGHT / 2) / (HEIGHT / 2)) ** 2 < 0.9
    centre = rng.integers((30, 20), (HEIGHT - 30, 50))
    mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (12 if malignant else 7) ** 2
    values = np.where(tissue, 0.4 + 0.1 * noise / noise.std(), 0.01) + (0.3 if malignant else 0.15) * (mask & tissue)
    return (np.clip(values, 0, 1) * 65535).astype(np.uint16), mask


def _write_images(images: Artefact, rng: np.random.Generator) -> list[dict]:
    number = count()
    films = []
    for split, many in FILMS.items():
        for index in range(many):
            malignant, n = index % 2 == 0, next(number)
            pixels, mask = film(rng, malignant)
            word = "malignant" if malignant else "benign"
            lesion = {
                "lesion_id": f"film-{n}_1",
                "kind": "mass",
                "pathology": word,
                "mask_png": outlines.encode_mask(mask),
            }
            row = {"image_id": f"film-{n}", "film_id": f"film-{n}", "patient_id": f"P{n}", "split": split}
            row |= {"label": int(malignant), "laterality": "LR"[n % 2], "view": ("CC", "MLO")[n % 2], "density": 2}
            row |= {"vendor": ("Hologic", None)[n % 2]}
            films.append(row | {"source_height": 400, "source_width": 300, "lesions": [lesion], "pixels": pixels})
    fields = schema.images(HEIGHT, WIDTH)
    for start in range(0, len(films), 4):  # several shards a split
        for split in schema.SPLITS:
            rows = [row for row in films[start : start + 4] if row["split"] == split]
            if rows:
                _write_rows(images, f"{split}-{start:012x}", rows, fields)
    bad = [{"image_id": "film-99", "path": "film-99.dcm", "stage": "decode", "reason": "<cut off>", "fatal": True}]
    lake.write_table(images.file("quarantine.parquet"), pa.Table.from_pylist(bad, schema=schema.QUARANTINE))
    who = "".join(f"{row['patient_id']},{row['split']}\n" for row in films)
    lake.write_bytes(images.file("splits.csv"), f"patient_id,split\n{who}".encode())
    per_split = {s: sum(row["split"] == s for row in films) for s in schema.SPLITS}
    malignant = {s: sum(row["split"] == s and row["label"] for row in films) for s in schema.SPLITS}
    summary = {"images": per_split, "malignant": malignant, "patients": per_split, "mean_grey": 60.0, "quarantined": 1}
    summary["outlines_missing"] = 0
    pixels = np.stack([row["pixels"] for row in films])
    summary["histogram"] = np.histogram(pixels, bins=256, range=(0, 65536))[0].tolist()
    summary |= {"outlines_missing": 0, "duplicates": 0, "left_out": None, "source": {}}
    images.finish(summary, [images.lake.artefact("phantoms", "made")])
    return films


def _write_patches(patches: Artefact, films: list[dict], rng: np.random.Generator) -> None:
    counts: dict = {}
    classes = PatchConfig().classes
    for split in schema.SPLITS:
        rows = []
        for row in (row for row in films if row["split"] == split):
            for label in (0, 1 if row["label"] else 2):
                top, left = rng.integers((0, 0), (HEIGHT - SIDE, WIDTH - SIDE))
                patch = {name: row[name] for name in ("image_id", "film_id", "patient_id", "split")}
                patch |= {"patch_id": f"{row['image_id']}/{label}/0", "label": label, "lesion_id": None}
                patch |= {"row": top, "column": left, "overlap": 1.0, "below_min": False}
                patch |= {"unverified": label == 0 and len(rows) == 0}
                rows.append(patch | {"pixels": row["pixels"][top : top + SIDE, left : left + SIDE]})
        _write_rows(patches, f"{split}-{0:012x}", rows, schema.patches(SIDE))
        counts[split] = {classes[c]: sum(row["label"] == c for row in rows) for c in range(3)}
    empty = pa.Table.from_pylist([], schema=schema.QUARANTINE)
    lake.write_table(patches.file("quarantine.parquet"), empty)
    patches.finish({"patches": counts, "below_min": 0, "unverified": 0, "quarantined": 0})


def _write_rows(artefact: Artefact, name: str, rows: list[dict], fields: pa.Schema) -> None:
    plain = [{key: value for key, value in row.items() if key != "pixels"} for row in rows]
    table = pa.Table.from_pylist(plain, schema=fields.remove(fields.get_field_index("pixels")))
    pixels = pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack([row["pixels"] for row in rows]))
    lake.write_table(artefact.file("shards", f"{name}.parquet"), table.append_column("pixels", pixels).cast(fields))


def _write_models(made: MadeLake) -> None:
    mean = 60.0
    spec = PatchSpec(
        precision="fp32",
        backbone=BACKBONE,
        classes=made.config.patches.classes,
        mean_grey=mean,
        side=SIDE,
        weights=None,
    )
    trunk = classifiers.patch_classifier(spec, seed=1)
    _write_model(made.trunk.file("best"), model_files.to_files(trunk))
    history = [_epoch(n, val_accuracy=0.2 + 0.1 * n) for n in range(4)]
    lake.write_json(made.trunk.file("history.json"), history)
    made.trunk.finish({"val_accuracy": 0.5, "best_epoch": 4, "epochs": 4, "run_id": "none"})
    ranking = []
    for index, top in enumerate(TOP_LAYERS):
        spec = parse(top)
        name = classifiers.candidate_name(BACKBONE, spec)
        model = classifiers.whole_image(trunk, spec, made.config.images, seed=index, precision="fp32").model
        survived = index < 2
        _write_model(made.search.file("candidates", name, "best"), model_files.to_files(model))
        history = [_epoch(n, val_auc=0.5 + 0.05 * n) for n in range(4 if survived else 2)]
        lake.write_json(made.search.file("candidates", name, "history.json"), history)
        kind = classifiers.candidate_kind(BACKBONE, spec)
        row = {
            "name": name,
            "backbone": BACKBONE,
            "top_layers": top,
            "kind": kind,
            "changes": "",
            "run_id": "none",
            "stage1_val_auc": 0.6,
            "val_auc": 0.65 - 0.01 * index,
        }
        row |= {"gflops": 0.2 + 0.1 * index, "lr": 1e-3, "weight_decay": 0.0, "dropout": 0.0}
        parameters = sum(p.numel() for p in model.parameters())
        cost = {"epoch_seconds": 2.5, "memory_gib": 1.25} if survived else {"epoch_seconds": None, "memory_gib": None}
        ranking.append(row | cost | {"best_epoch": 3, "epochs": 4, "parameters": parameters, "survived": survived})
    made.search.finish({"run_id": "none", "ranking": ranking, "failed": {}, "out_of_time": []})


def _epoch(n: int, **figures: float) -> dict:
    return {"epoch": n + 1, "stage": 1 + n // 2, "lr": 1e-3, "loss": 1.5 - 0.3 * n, "val_loss": 1.4 - 0.2 * n} | figures


def _write_model(folder: str, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        lake.write_bytes(lake.join(folder, name), content)
