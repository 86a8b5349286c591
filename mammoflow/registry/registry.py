"""The model registry of a tracking server: versions, aliases, and what is packed with each. No Ray.

A `Registry` holds one MLflow client and one folder of downloads. A `Version` is immutable but for its aliases and tags,
so each of its files is fetched once.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath

import mlflow.artifacts
import pyarrow as pa
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException

from mammoflow import lake, tracking
from mammoflow.errors import LakeError, TrackingError
from mammoflow.models.classifiers import ImageSpec
from mammoflow.models.model_files import SPEC_FILE, read_spec
from mammoflow.registry import predictor
from mammoflow.registry.predictor import About, Predictor

CANDIDATE, CHAMPION = "candidate", "champion"
"""Aliases: the newest registered version, and the one that users score with."""

FOLDER = "ensemble"
"""Folder of the predictor below the data of a registered model."""

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
_MOST = 1000  # models or versions in one answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered(About):
    """One version of a registered model and what its predictor's folder says. It can be sent to other processes."""

    name: str
    """Name in the registry."""
    version: str
    """Version in the registry, counted from 1."""
    run_id: str
    """MLflow run that registered it."""
    aliases: tuple[str, ...]
    """Its aliases now, e.g. champion."""

    @property
    def uri(self) -> str:
        """Return the URI of exactly this version."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version in a registry; its files are fetched when asked for."""

    name: str
    """Name in the registry."""
    version: str
    """Version in the registry, counted from 1."""
    run_id: str
    """MLflow run that registered it."""
    aliases: tuple[str, ...]
    """Its aliases now, e.g. champion."""
    tags: Mapping[str, str]
    """`val_auc` and `members`; after evaluation also `test_auc` and `test_ci95`."""
    registry: "Registry" = field(repr=False, compare=False)
    """Where it is registered."""

    @property
    def key(self) -> str:
        """Return `<name>/<version>`."""
        return f"{self.name}/{self.version}"

    @property
    def uri(self) -> str:
        """Return the URI of exactly this version."""
        return f"models:/{self.key}"

    def describe(self) -> Registered:
        """Return what was packed with it, without its weights.

        Raises:
            LakeError: another version of mammoflow packed it.
        """
        about = predictor.read_about(self._fetch(predictor.ABOUT))
        values = {field.name: getattr(about, field.name) for field in fields(About)}
        return Registered(name=self.name, version=self.version, run_id=self.run_id, aliases=self.aliases, **values)

    def load(self) -> Predictor:
        """Load it into this process, with this process's code.

        Raises:
            LakeError: another version of mammoflow packed it.
        """
        return predictor.read_folder(self._fetch())

    def members(self) -> dict[str, str]:
        """Return the local model folder of each member by name; it lives as long as the registry object."""
        return {path.name: str(path) for path in sorted(Path(self._fetch("members")).iterdir())}

    def member_specs(self) -> dict[str, ImageSpec]:
        """Return the spec of each member by name, without its weights.

        Raises:
            LakeError: another version of mammoflow packed it.
        """
        specs = {}
        for name in self.describe().ensemble.names:
            spec = read_spec(Path(self._fetch("members", name, SPEC_FILE)).read_bytes())
            if not isinstance(spec, ImageSpec):
                raise LakeError(f"{self.uri}: member {name} is a patch classifier; register the ensemble again")
            specs[name] = spec
        return specs

    def validation_scores(self) -> pa.Table:
        """Return its rows (schema.SCORES) on the validation images that it was chosen on.

        Raises:
            LakeError: an earlier version of mammoflow packed it, without them.
        """
        return lake.read_table(self._fetch(predictor.VALIDATION))

    def tag(self, figures: Mapping[str, str]) -> None:
        """Add tags, such as test results."""
        with self.registry.client() as client:
            for name, value in figures.items():
                client.set_model_version_tag(self.name, self.version, name, value)

    def _fetch(self, *parts: str) -> str:
        return self.registry.fetch(self.name, self.version, "/".join(("data", FOLDER, *parts)))


class Registry:
    """A registry by its tracking URI: one client, opened on first use, and one folder of downloads."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # goes with this object
        self._fetched: dict[tuple[str, str, str], str] = {}

    @contextmanager
    def client(self) -> Iterator[MlflowClient]:
        """Yield the client; a refusal of the server becomes a TrackingError."""
        if self._client is None:
            tracking.check_reachable(self.uri)
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        try:
            yield self._client
        except MlflowException as error:
            raise TrackingError(f"the registry at {tracking.public(self.uri)} refuses: {error}") from error

    def version(self, uri: str) -> Version:
        """Return the version that `models:/<name>@<alias>` or `models:/<name>/<version>` names.

        Raises:
            TrackingError: no such model, version or alias.
        """
        match = _URI.fullmatch(uri)
        if match is None:
            raise TrackingError(
                f"{uri!r} names no registered model; write models:/<name>@<alias> or models:/<name>/<version>"
            )
        name, alias, version = match.group("name", "alias", "version")
        with self.client() as client:
            try:
                made = (
                    client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
                )
            except MlflowException as error:
                models = sorted(model.name for model in client.search_registered_models())
                raise TrackingError(
                    f"{uri} is not registered ({error.message}); the registry at {tracking.public(self.uri)} knows "
                    f"{models or 'no model'}; register one with `mammoflow select`, or name the right lake with "
                    "--lake"
                ) from error
            return self._version(made, made.aliases)

    def versions(self) -> list[Version]:
        """Return every version of every ensemble of mammoflow, by model and version.

        Raises:
            TrackingError: the registry does not answer.
        """
        with self.client() as client:
            aliases = {model.name: model.aliases for model in client.search_registered_models(max_results=_MOST)}
            made = client.search_model_versions(max_results=_MOST)
        ours = [
            self._version(one, (alias for alias, at in aliases[one.name].items() if str(at) == str(one.version)))
            for one in made
            if one.name in aliases and {"val_auc", "members"} <= one.tags.keys()
        ]
        return sorted(ours, key=lambda version: (version.name, int(version.version)))

    def champion(self, name: str) -> str | None:
        """Return the version of a registered model that is its champion; None without one.

        Raises:
            TrackingError: no such model.
        """
        with self.client() as client:
            held = client.get_registered_model(name).aliases.get(CHAMPION)
        return None if held is None else str(held)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version.

        Raises:
            TrackingError: no such model or version.
        """
        with self.client() as client:
            client.set_registered_model_alias(name, alias, version)

    def fetch(self, name: str, version: str, path: str) -> str:
        """Return the local path of a file or folder of a version's package, downloaded once.

        Raises:
            TrackingError: the package has no such file.
        """
        for outer in (PurePosixPath(path), *PurePosixPath(path).parents):
            if local := self._fetched.get((name, version, str(outer))):
                return str(Path(local, PurePosixPath(path).relative_to(outer)))
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="mammoflow-")
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)  # type: ignore[no-untyped-call]  # it would draw a bar a file
        with self.client() as client:
            source = client.get_model_version_download_uri(name, version)
            local = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{source}/{path}",
                dst_path=tempfile.mkdtemp(dir=self._folder.name),
                tracking_uri=self.uri,
                registry_uri=self.uri,
            )
        self._fetched[name, version, path] = str(local)
        return str(local)

    def _version(self, made: ModelVersion, aliases: Iterator[str] | list[str]) -> Version:
        return Version(
            name=str(made.name),
            version=str(made.version),
            run_id=str(made.run_id),
            aliases=tuple(sorted(aliases)),
            tags=dict(made.tags),
            registry=self,
        )
