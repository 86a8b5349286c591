"""A classifier as files: a model folder is a dict of file names and bytes, its spec and its weights, never a pickle.

No Ray, no reading or writing.
"""

import json
from collections.abc import Mapping
from dataclasses import fields

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from mammoflow.errors import LakeError
from mammoflow.models.classifiers import Classifier, ImageSpec, PatchClassifier, PatchSpec, WholeImageClassifier
from mammoflow.models.top_kinds import parse

SPEC_FILE, WEIGHTS_FILE = "model.json", "model.safetensors"
_FORMAT = 3  # of model.json


def to_files(model: Classifier, state: Mapping[str, Tensor] | None = None) -> dict[str, bytes]:
    """Return a model folder: its spec as JSON and its weights as safetensors.

    Args:
        model: whose spec it is.
        state: weights to write instead of the model's own, all of them.
    """
    kind = "patch" if isinstance(model, PatchClassifier) else "image"
    spec = {field.name: getattr(model.spec, field.name) for field in fields(model.spec)}
    if isinstance(model.spec, ImageSpec):
        spec["top_layers"] = str(model.spec.top_layers)
    about = {"format": _FORMAT, "kind": kind, **spec}
    weights = model.state_dict() if state is None else state
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    return {SPEC_FILE: (json.dumps(about, indent=1) + "\n").encode(), WEIGHTS_FILE: save_tensors(tensors)}


def from_files(files: Mapping[str, bytes]) -> Classifier:
    """Return the model of a model folder, in eval mode on the CPU.

    Raises:
        LakeError: a file is missing or damaged, or the weights don't fit the spec; says which and how many.
    """
    for name in (SPEC_FILE, WEIGHTS_FILE):
        if name not in files:
            raise LakeError(f"a model folder needs {SPEC_FILE} and {WEIGHTS_FILE}; {name} is missing")
    model = _from_spec(files[SPEC_FILE])
    try:
        state = load_tensors(files[WEIGHTS_FILE])
    except SafetensorError as error:
        raise LakeError(f"{WEIGHTS_FILE} is damaged ({error}); train the model again or restore the file") from error
    wanted = model.state_dict()
    wrong = sorted(name for name in wanted.keys() | state.keys() if not _same_shape(wanted.get(name), state.get(name)))
    if wrong:
        raise LakeError(
            f"{len(wrong)} of {len(wanted)} weights in {WEIGHTS_FILE} don't fit {SPEC_FILE}, the first {wrong[0]}; "
            "the two files are not of one model"
        )
    model.load_state_dict(state, assign=True)
    return model.eval()


def _same_shape(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape


def read_spec(data: bytes) -> PatchSpec | ImageSpec:
    """Return what `model.json` says of a model.

    Raises:
        LakeError: it is damaged, or of another version.
    """
    try:
        about = json.loads(data)
        form: type[PatchSpec | ImageSpec] = {"patch": PatchSpec, "image": ImageSpec}[about["kind"]]
        if about.get("format") != _FORMAT:
            raise LakeError(
                f"{SPEC_FILE} has format {about.get('format')}, but this version of mammoflow reads {_FORMAT}; train "
                "the model again, or use the version that wrote it"
            )
        values = {field.name: about[field.name] for field in fields(form)}
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(f"{SPEC_FILE} is damaged ({error!r}); train the model again or restore the file") from error
    values["classes"] = tuple(values["classes"])
    if form is ImageSpec:
        values["top_layers"] = parse(values["top_layers"])
    return form(**values)


def _from_spec(data: bytes) -> Classifier:
    """Build the model on the meta device: its weights come from the file."""
    spec = read_spec(data)
    with torch.device("meta"):
        return PatchClassifier(spec) if isinstance(spec, PatchSpec) else WholeImageClassifier(spec)
