"""Whole-image classifiers that fine-tuning starts from: located, and copied into the lake. No Ray.

They are the members of a registered ensemble, the candidate of an MLflow run, or the model in a folder.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mammoflow import lake, tracking
from mammoflow.config import Config
from mammoflow.errors import ConfigError
from mammoflow.lake import Artefact, Lake
from mammoflow.models import classifiers, model_files
from mammoflow.models.classifiers import ImageSpec
from mammoflow.models.model_files import SPEC_FILE, WEIGHTS_FILE
from mammoflow.registry.registry import Registered, Registry, Version

_REGISTRY = "models:/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """Classifiers to start from."""

    name: str
    """URI of the registered version, or the folder."""
    identity: str
    """Part of fingerprints: the run that registered them, or a hash of their contents."""
    specs: Mapping[str, ImageSpec]
    """By candidate name."""
    version: Version | None
    """The registered version whose members they are; None for a folder."""
    registered: Registered | None
    """What was packed with it."""


def find(config: Config, root: Lake) -> Starts:
    """Locate the classifiers that `config.start` names, and check that they fit the config's images.

    Args:
        config: with `start` set.
        root: the lake whose tracking server is used.

    Raises:
        TrackingError: no such registered model or run.
        LakeError: no such folder, or a damaged one.
        ConfigError: it is a patch classifier, or does not fit the images.
    """
    start = str(config.start)
    starts = _registered(root, start) if start.startswith(_REGISTRY) else _in_folder(root, start)
    for spec in starts.specs.values():
        classifiers.adapted(spec, config.images, spec.mean_grey)
    return starts


def check_images(model: Registered, config: Config) -> None:
    """Check that images are reduced as those that a registered ensemble was trained on.

    Raises:
        ConfigError: another size or policy.
    """
    for name, trained in asdict(model.images).items():
        if (given := getattr(config.images, name)) != trained:
            flag = f"--images.{name.replace('_', '-')}"
            raise ConfigError(f"images.{name} is {given}, but {model.uri} takes {trained}; give {flag} {trained}")


def check_name(config: Config) -> None:
    """Check that the result is not registered under the name whose alias `config.start` follows.

    Raises:
        ConfigError: it would be.
    """
    start = str(config.start)
    named = start.removeprefix(_REGISTRY).partition("@")
    if start.startswith(_REGISTRY) and named[1] and named[0] == config.ensemble.model_name:
        raise ConfigError(
            f"start is {start}, and the result is registered as {named[0]} too: once promoted, it would begin "
            f"from itself; give --ensemble.model-name another name, or name a version, such as {_REGISTRY}{named[0]}/1"
        )


def fetch(starts: Starts, out: Artefact) -> dict[str, str]:
    """Copy the classifiers to where every worker can read them, once; return candidate name -> folder."""
    folders = {name: out.file("work", "start", name) for name in starts.specs}
    files = [lake.join(folder, file) for folder in folders.values() for file in (SPEC_FILE, WEIGHTS_FILE)]
    if not all(map(lake.exists, files)):
        (name, *_) = starts.specs
        sources = starts.version.members() if starts.version else {name: starts.name}
        for name, source in sources.items():
            lake.write_folder(folders[name], lake.read_folder(source))
    return folders


def _registered(root: Lake, uri: str) -> Starts:
    tracking_uri = tracking.uri(root)
    tracking.check_registry(tracking_uri)
    version = Registry(tracking_uri).version(uri)
    return Starts(
        name=version.uri,
        identity=version.run_id,
        specs=version.member_specs(),
        version=version,
        registered=version.describe(),
    )


def _in_folder(root: Lake, start: str) -> Starts:
    """Return the model of a run or folder, under the candidate name that its search gave it."""
    weights = tracking.weights_of(root, start)
    folder = start if weights == start else str(weights).rpartition("/")[0]
    spec = model_files.read_spec(lake.read_bytes(lake.join(folder, SPEC_FILE)))
    if not isinstance(spec, ImageSpec):
        raise ConfigError(
            f"{start} is a patch classifier, but start wants whole-image classifiers; "
            "to initialise patch classifiers with it, give it as a trunk's weights"
        )
    contents = [
        hashlib.sha256(lake.read_bytes(lake.join(folder, name))).hexdigest() for name in (SPEC_FILE, WEIGHTS_FILE)
    ]
    name = classifiers.candidate_name(spec.backbone, spec.top_layers)
    identity = lake.fingerprint(contents)
    return Starts(name=folder, identity=identity, specs={name: spec}, version=None, registered=None)
