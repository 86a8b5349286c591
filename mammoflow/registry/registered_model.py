"""Pack an ensemble as an MLflow model and register it. No Ray; promotion.py makes it the champion.

The package is code and data, never a pickle: this package's source and the predictor's folder.
`mlflow.pyfunc.load_model("models:/mammoflow@champion")` calls `_load_pyfunc` here, in any process.
"""

import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path

import mlflow.pyfunc
import pyarrow as pa
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

import mammoflow
from mammoflow import tracking
from mammoflow.config import ImageConfig
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.ensemble.profile import Profile
from mammoflow.facts.card import Card
from mammoflow.models.timm_trunks import is_timm
from mammoflow.registry import model_card, predictor
from mammoflow.registry.predictor import About, Predictor
from mammoflow.registry.registry import CANDIDATE, FOLDER, Registry

CARD = "README.md"
"""File of a registered model that describes it."""

EXPERIMENT = "ensembles"
"""MLflow experiment whose runs hold the packages."""

_PACKAGES = (
    "imagecodecs",
    "mlflow",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "pyarrow",
    "pydicom",
    "pylibjpeg-openjpeg",
    "safetensors",
    "scikit-learn",
    "torch",
    "torchvision",
)
"""Imports of loading and predicting; timm is added where a member's trunk comes from it."""


def _load_pyfunc(data_path: str) -> Predictor:
    """Load the packed ensemble; MLflow calls this by name."""
    return predictor.read_folder(data_path)


def register(
    registry: Registry,
    ensemble: Ensemble,
    members: Mapping[str, str],
    card: Card,
    name: str,
    images: ImageConfig,
    *,
    precision: str,
    profile: Profile,
    validation: pa.Table,
) -> str:
    """Package the ensemble into an MLflow run, register it as a new version and give it the alias `candidate`.

    Args:
        registry: where to register it.
        ensemble: the frozen choice.
        members: candidate name -> folder or URL of its model.json and model.safetensors.
        card: data, figures, intended use, limits.
        name: of the registered model.
        images: size and fit of the images that the members were trained on.
        precision: fp32 | bf16, the arithmetic of training, evaluation and prediction.
        profile: of their training images.
        validation: the ensemble's own rows (schema.SCORES) on validation, for comparison with later versions.

    Returns:
        The version, counted from 1.

    Raises:
        LakeError: a member's model is missing, or takes images of another size.
        TrackingError: the server can't be reached or refuses.
    """
    tracker = tracking.Tracker.connect(registry.uri, EXPERIMENT)
    tags = {"val_auc": repr(ensemble.val_auc), "members": ", ".join(ensemble.names)}
    with tempfile.TemporaryDirectory(prefix="mammoflow-") as folder, registry.client() as client:
        package = Path(folder) / "model"
        about = About(ensemble=ensemble, images=images, precision=precision, profile=profile, card=card)
        _pack(package, about, members, validation, name)
        run_id = tracker.start(name, params={"cutoff": ensemble.cutoff}, tags=tags)
        with tracker.closing([run_id]):
            tracker.log(run_id, {"val_auc": ensemble.val_auc}, step=0)
            client.log_artifacts(run_id, str(package), artifact_path="model")
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(
                    name, description="Cancer or not, for whole mammograms. Research use only."
                )
            source = f"{client.get_run(run_id).info.artifact_uri}/model"
            made = client.create_model_version(name, source, run_id=run_id, tags=tags, description=_describe(ensemble))
        registry.set_alias(name, CANDIDATE, str(made.version))
    return str(made.version)


def _pack(package: Path, about: About, members: Mapping[str, str], validation: pa.Table, name: str) -> None:
    """Write the MLflow model folder: code, data, requirements, card."""
    kinds = {"score": DataType.double, "probability": DataType.double, "malignant": DataType.boolean}
    kinds |= dict.fromkeys(about.ensemble.names, DataType.double)
    with tempfile.TemporaryDirectory(prefix="mammoflow-") as folder:
        data = Path(folder) / FOLDER
        specs = predictor.write_folder(str(data), about, members, validation)
        packages = sorted({*_PACKAGES, *("timm" for spec in specs if is_timm(spec.backbone))})
        with warnings.catch_warnings():
            # MLflow wants an input example, but no single schema covers paths and arrays.
            warnings.filterwarnings("ignore", message=".*input example was not provided")
            mlflow.pyfunc.save_model(
                path=str(package),
                loader_module=__name__,
                data_path=str(data),
                code_paths=[str(Path(mammoflow.__file__).parent)],
                pip_requirements=[f"{name}=={installed_version(name)}" for name in packages],
                signature=ModelSignature(outputs=Schema([ColSpec(kind, name) for name, kind in kinds.items()])),
            )
    (package / CARD).write_text(model_card.render(name, about), encoding="utf-8")


def _describe(ensemble: Ensemble) -> str:
    interval = ensemble.val_by_patient
    spread = f" (95% interval by patient {interval.low:.3f}-{interval.high:.3f})" if interval else ""
    return (
        f"Mean of {', '.join(ensemble.names)}. Chosen on {ensemble.val_images} validation images: AUC "
        f"{ensemble.val_auc:.3f}{spread}, cut-off {ensemble.cutoff:.4f}. Research use only."
    )
