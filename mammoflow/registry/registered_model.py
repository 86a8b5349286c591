"""The ensemble as a registered MLflow model: register, describe, load. No Ray; promotion.py makes it the champion.

What is registered is code and data, never a pickle: this package's source and the predictor's folder.
`mlflow.pyfunc.load_model("models:/mammoflow@champion")` finds `_load_pyfunc` here, in any process.
"""

import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import mlflow.artifacts
import mlflow.pyfunc
import pyarrow as pa
from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

import mammoflow
from mammoflow import lake, tracking
from mammoflow.config import ImageConfig
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.ensemble.profile import Profile
from mammoflow.errors import LakeError, TrackingError
from mammoflow.facts.card import Card
from mammoflow.models.classifiers import ImageSpec
from mammoflow.models.model_files import SPEC_FILE, read_spec
from mammoflow.models.timm_trunks import is_timm
from mammoflow.registry import model_card, predictor
from mammoflow.registry.predictor import About, Predictor

CANDIDATE, CHAMPION = "candidate", "champion"
"""Aliases: the newest registered version, and the one that users score with."""

CARD = "README.md"
"""File of a registered model that tells people what it is."""

EXPERIMENT = "ensembles"
"""MLflow experiment whose runs hold the packages."""

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
_FOLDER = "ensemble"
_MOST = 1000  # models or versions that a search returns
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
"""What loading and predicting imports; and timm, where a member's trunk is one of its nets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One version of a registered model, and what was packed with it."""

    name: str
    """Name in the registry."""
    version: str
    """Version in the registry, counted from 1."""
    run_id: str
    """MLflow run that registered it."""
    aliases: tuple[str, ...]
    """Its aliases now, e.g. champion."""
    ensemble: Ensemble
    """Members, cut-off and validation figures."""
    images: ImageConfig
    """Size and fit of the images that the members take."""
    precision: str
    """fp32 | bf16: arithmetic that it predicts in."""
    profile: Profile
    """What its training images look like."""
    card: Card
    """Where it comes from and what it is for, as given at registration."""

    @property
    def uri(self) -> str:
        """Return the URI of exactly this version."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What the registry itself says of a version."""

    name: str
    """Name in the registry."""
    version: str
    """Version in the registry, counted from 1."""
    aliases: tuple[str, ...]
    """Its aliases now, e.g. champion."""
    tags: dict[str, str]
    """`val_auc` and `members`; once it was evaluated, `test_auc` and `test_auc_by_patient` too."""

    @property
    def key(self) -> str:
        """Return `<name>/<version>`."""
        return f"{self.name}/{self.version}"


def _load_pyfunc(data_path: str) -> Predictor:
    """Load the packed ensemble; MLflow calls this by name."""
    return predictor.read_folder(data_path)


def register(
    tracking_uri: str,
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
        tracking_uri: of the tracking server and registry.
        ensemble: the frozen choice.
        members: candidate name -> folder or URL of its model.json and model.safetensors.
        card: data, figures, intended use, limits.
        name: of the registered model.
        images: size and fit of the images that the members were trained on.
        precision: fp32 | bf16, arithmetic that the members were trained and judged in, and will predict in.
        profile: of their training images.
        validation: the ensemble's own rows (schema.SCORES) on validation, which a later version is held against.

    Returns:
        The version, counted from 1.

    Raises:
        LakeError: a member's model is missing, or takes images of another size.
        TrackingError: the server can't be reached or refuses.
    """
    tracker = tracking.Tracker.connect(tracking_uri, EXPERIMENT)
    tags = {"val_auc": repr(ensemble.val_auc), "members": ", ".join(ensemble.names)}
    with tempfile.TemporaryDirectory(prefix="mammoflow-") as folder, connect(tracking_uri) as client:
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
            client.set_registered_model_alias(name, CANDIDATE, str(made.version))
    return str(made.version)


def tag(tracking_uri: str, uri: str, figures: Mapping[str, str]) -> None:
    """Give a registered version tags, such as what came out on the test split.

    Raises:
        TrackingError: no such model, version or alias.
    """
    with connect(tracking_uri) as client:
        found = find(client, uri)
        for name, value in figures.items():
            client.set_model_version_tag(found.name, found.version, name, value)


def describe(tracking_uri: str, uri: str) -> Registered:
    """Return what a registered version is, without loading its weights.

    Args:
        tracking_uri: of the registry.
        uri: models:/<name>@<alias> or models:/<name>/<version>.

    Raises:
        TrackingError: no such model, version or alias.
        LakeError: it was not packed by this version of mammoflow.
    """
    with connect(tracking_uri) as client, tempfile.TemporaryDirectory(prefix="mammoflow-") as folder:
        found = find(client, uri)
        about = predictor.read_about(_download(client, found, f"data/{_FOLDER}/{predictor.ABOUT}", folder))
        return Registered(
            name=str(found.name),
            version=str(found.version),
            run_id=str(found.run_id),
            aliases=tuple(sorted(found.aliases)),
            ensemble=about.ensemble,
            images=about.images,
            precision=about.precision,
            profile=about.profile,
            card=about.card,
        )


def versions(tracking_uri: str) -> list[Version]:
    """Return every registered version of every ensemble of mammoflow, by model and version.

    Raises:
        TrackingError: the registry does not answer.
    """
    with connect(tracking_uri) as client:
        models = {model.name: model.aliases for model in client.search_registered_models(max_results=_MOST)}
        found = client.search_model_versions(max_results=_MOST)
    return sorted(
        (
            Version(
                name=str(each.name),
                version=str(each.version),
                aliases=tuple(sorted(a for a, v in models[each.name].items() if str(v) == str(each.version))),
                tags=dict(each.tags),
            )
            for each in found
            if each.name in models and {"val_auc", "members"} <= each.tags.keys()
        ),
        key=lambda each: (each.name, int(each.version)),
    )


def load(tracking_uri: str, uri: str) -> Predictor:
    """Load a registered version into this process, with this process's code.

    Args:
        tracking_uri: of the registry.
        uri: models:/<name>@<alias> or models:/<name>/<version>.

    Raises:
        TrackingError: no such model, version or alias.
        LakeError: it was not packed by this version of mammoflow.
    """
    with connect(tracking_uri) as client, tempfile.TemporaryDirectory(prefix="mammoflow-") as folder:
        return _load_pyfunc(_download(client, find(client, uri), f"data/{_FOLDER}", folder))


def member_specs(tracking_uri: str, about: Registered) -> dict[str, ImageSpec]:
    """Return what each member of a registered version is, by name, without loading its weights.

    Raises:
        TrackingError: the registry does not answer.
        LakeError: it was not packed by this version of mammoflow.
    """
    found = {}
    with connect(tracking_uri) as client, tempfile.TemporaryDirectory(prefix="mammoflow-") as folder:
        version = find(client, about.uri)
        for name in about.ensemble.names:
            path = f"data/{_FOLDER}/members/{name}/{SPEC_FILE}"
            spec = read_spec(Path(_download(client, version, path, folder)).read_bytes())
            if not isinstance(spec, ImageSpec):
                raise LakeError(f"{about.uri}: member {name} is a patch classifier; register an ensemble anew")
            found[name] = spec
    return found


def members(tracking_uri: str, uri: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the name and the model folder of each member of a registered version.

    Raises:
        TrackingError: no such model, version or alias.
    """
    with connect(tracking_uri) as client, tempfile.TemporaryDirectory(prefix="mammoflow-") as folder:
        members = Path(_download(client, find(client, uri), f"data/{_FOLDER}/members", folder))
        for member in sorted(members.iterdir()):
            yield member.name, lake.read_folder(str(member))


def validation_scores(tracking_uri: str, uri: str) -> pa.Table:
    """Return the rows (schema.SCORES) of a registered version on the validation images that it was chosen on.

    Raises:
        TrackingError: no such model, version or alias.
        LakeError: it was packed by an earlier version of mammoflow, without them.
    """
    with connect(tracking_uri) as client, tempfile.TemporaryDirectory(prefix="mammoflow-") as folder:
        path = f"data/{_FOLDER}/{predictor.VALIDATION}"
        return lake.read_table(_download(client, find(client, uri), path, folder))


def _pack(package: Path, about: About, members: Mapping[str, str], validation: pa.Table, name: str) -> None:
    """Write the MLflow model folder: code, data, requirements, card."""
    kinds = {"score": DataType.double, "probability": DataType.double, "malignant": DataType.boolean}
    kinds |= dict.fromkeys(about.ensemble.names, DataType.double)
    with tempfile.TemporaryDirectory(prefix="mammoflow-") as folder:
        data = Path(folder) / _FOLDER
        specs = predictor.write_folder(str(data), about, members, validation)
        packages = sorted({*_PACKAGES, *("timm" for spec in specs if is_timm(spec.backbone))})
        with warnings.catch_warnings():
            # MLflow wants an example to check inputs by; there is no one schema, for paths and arrays are both taken.
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


@contextmanager
def connect(tracking_uri: str) -> Iterator[MlflowClient]:
    """Yield a client of this server; whatever it refuses becomes a TrackingError."""
    tracking.check_reachable(tracking_uri)
    try:
        yield MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    except MlflowException as error:
        raise TrackingError(f"the registry at {tracking_uri} refuses: {error}") from error


def find(client: MlflowClient, uri: str) -> Any:
    """Return the model version that a models:/ URI names.

    Raises:
        TrackingError: no such model, version or alias.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise TrackingError(
            f"{uri!r} names no registered model; write models:/<name>@<alias> or models:/<name>/<version>"
        )
    name, alias, version = match.group("name", "alias", "version")
    try:
        return client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
    except MlflowException as error:
        known = sorted(model.name for model in client.search_registered_models())
        raise TrackingError(
            f"{uri} is not registered ({error.message}); the registry at {client.tracking_uri} knows "
            f"{known or 'no model'}; register one with jobs/select_ensemble.py, or name the right lake with --lake"
        ) from error


def _download(client: MlflowClient, version: Any, path: str, folder: str) -> str:
    """Fetch a file or folder of a version's package and return where it lies."""
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)  # type: ignore[no-untyped-call]  # it would draw a bar a file
    source = client.get_model_version_download_uri(version.name, version.version)
    uri = client.tracking_uri
    artifact = f"{source}/{path}"
    return str(
        mlflow.artifacts.download_artifacts(artifact_uri=artifact, dst_path=folder, tracking_uri=uri, registry_uri=uri)
    )
