"""Whole-image classifiers that training goes on from, on other data: found by name, brought into the lake. No Ray.

They are members of a registered ensemble, the candidate of an MLflow run, or a folder of a model.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from mammoflow import lake, tracking
from mammoflow.config import Config
from mammoflow.errors import ConfigError
from mammoflow.lake import Artefact, Lake
from mammoflow.models import classifiers, model_files
from mammoflow.models.classifiers import ImageSpec
from mammoflow.models.model_files import SPEC_FILE, WEIGHTS_FILE
from mammoflow.registry import registered_model
from mammoflow.registry.registered_model import Registered

_REGISTRY = "models:/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """Classifiers to go on from."""

    name: str
    """The registered version, or the folder."""
    identity: str
    """What enters fingerprints: the run that registered them, or their contents."""
    specs: Mapping[str, ImageSpec]
    """By candidate name."""
    tracking_uri: str | None
    """Of the registry that holds them; None: `name` is their folder."""
    registered: Registered | None
    """The version whose members they are; None where `name` is a folder."""


def find(config: Config, root: Lake) -> Starts:
    """Find what `config.start` names, and check that it can go on with the config's images.

    Args:
        config: with `start` set.
        root: whose tracking server is asked.

    Raises:
        TrackingError: no such registered model or run.
        LakeError: no such folder, or a damaged one.
        ConfigError: it is a patch classifier, or does not fit the images.
    """
    start = str(config.start)
    found = _registered(root, start) if start.startswith(_REGISTRY) else _in_folder(root, start)
    for spec in found.specs.values():
        classifiers.adapted(spec, config.images, spec.mean_grey)
    return found


def check_images(found: Registered, config: Config) -> None:
    """Refuse images that a registered ensemble can't score as it is: reduced otherwise than those of its training.

    Raises:
        ConfigError: another size or policy.
    """
    for name, wanted in asdict(found.images).items():
        if (given := getattr(config.images, name)) != wanted:
            flag = f"--images.{name.replace('_', '-')}"
            raise ConfigError(f"images.{name} is {given}, but {found.uri} takes {wanted}; give {flag} {wanted}")


def check_name(config: Config) -> None:
    """Refuse to register under the name that a champion to begin from is found by.

    Raises:
        ConfigError: so it is.
    """
    start = str(config.start)
    named = start.removeprefix(_REGISTRY).partition("@")
    if start.startswith(_REGISTRY) and named[1] and named[0] == config.ensemble.model_name:
        raise ConfigError(
            f"start is {start}, and what comes of it is registered as {named[0]} too: once promoted, it would begin "
            f"from itself; give --ensemble.model-name another name, or name a version, such as {_REGISTRY}{named[0]}/1"
        )


def fetch(starts: Starts, out: Artefact) -> dict[str, str]:
    """Copy the classifiers to where every worker can read them, once; return candidate name -> folder."""
    folders = {name: out.file("work", "start", name) for name in starts.specs}
    if not all(
        lake.exists(lake.join(folder, each)) for folder in folders.values() for each in (SPEC_FILE, WEIGHTS_FILE)
    ):
        for name, files in _files(starts):
            lake.write_folder(folders[name], files)
    return folders


def _files(starts: Starts) -> Iterator[tuple[str, dict[str, bytes]]]:
    if starts.tracking_uri is not None:
        return registered_model.members(starts.tracking_uri, starts.name)
    (name,) = starts.specs
    return iter([(name, lake.read_folder(starts.name))])


def _registered(root: Lake, uri: str) -> Starts:
    tracking_uri = tracking.uri(root)
    tracking.check_registry(tracking_uri)
    about = registered_model.describe(tracking_uri, uri)
    specs = registered_model.member_specs(tracking_uri, about)
    return Starts(name=about.uri, identity=about.run_id, specs=specs, tracking_uri=tracking_uri, registered=about)


def _in_folder(root: Lake, start: str) -> Starts:
    """Return the model of a run or of a folder; its candidate is named as in the search that made it."""
    weights = tracking.weights_of(root, start)
    folder = start if weights == start else str(weights).rpartition("/")[0]
    spec = model_files.read_spec(lake.read_bytes(lake.join(folder, SPEC_FILE)))
    if not isinstance(spec, ImageSpec):
        raise ConfigError(
            f"{start} is a patch classifier, but start wants whole-image classifiers; "
            "to begin patch classifiers with its weights, give it as a trunk's weights"
        )
    contents = [
        hashlib.sha256(lake.read_bytes(lake.join(folder, name))).hexdigest() for name in (SPEC_FILE, WEIGHTS_FILE)
    ]
    name = classifiers.candidate_name(spec.backbone, spec.top_layers)
    identity = lake.fingerprint(contents)
    return Starts(name=folder, identity=identity, specs={name: spec}, tracking_uri=None, registered=None)
