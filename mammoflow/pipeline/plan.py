"""The plan that a job prints first: what it reuses, what it builds, and why. No Ray."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mammoflow import lake
from mammoflow.errors import LakeError
from mammoflow.lake import Artefact
from mammoflow.pipeline.graph import Artefacts
from mammoflow.pipeline.stages import STAGES

_SIBLINGS = 20  # compared at most: each is a request to an object store
_SHOWN = 3


def show(artefacts: Artefacts, needed: Sequence[str], missing: Sequence[str]) -> None:
    """Print a line for each artefact.

    Args:
        artefacts: of the config.
        needed: the stages of the plan, in building order.
        missing: those among them that must be built.
    """
    for name in needed:
        inputs = [item for need in STAGES[name].needs for item in artefacts.of(need)]
        first = [need for need in STAGES[name].needs if need in missing and artefacts.of(need)]
        for item in artefacts.of(name):
            state, why = "reuse", ""
            if not item.done:
                state = "build"
                why = f"  (needs {', '.join(first)})" if first else f"  ({explain(item, inputs) or 'not in the lake'})"
            print(f"  {state}  {name:<10} {item.name}-{item.fingerprint}{why}", flush=True)


def explain(item: Artefact, inputs: Iterable[Artefact]) -> str:
    """Return the settings and inputs by which an artefact differs from the nearest complete one of its stage.

    Returns:
        Such as `patches.per_lesion 10 here, 5 in patches/x-S10-0123456789ab`; empty where nothing comparable exists.
    """
    ours = _flat({**item.settings, **_by_stage(entry.key for entry in inputs)})
    siblings = sorted(lake.list_siblings(item), key=lambda sibling: sibling.name != item.name)[:_SIBLINGS]
    compared = []
    for sibling in siblings:
        try:
            record = sibling.record()
        except LakeError:  # damaged
            continue
        if record.settings:  # none before version 3 of the layout
            theirs = _flat({**record.settings, **_by_stage(record.inputs)})
            names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
            compared.append((sibling.name != item.name, len(names), sibling.key, names, theirs))
    if not compared:
        return ""
    _, _, key, names, theirs = min(compared)
    if not names:
        return ""
    differences = [f"{name} {_text(ours.get(name))} here, {_text(theirs.get(name))}" for name in names[:_SHOWN]]
    more = f", {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{'; '.join(differences)}{more} in {key}"


def _by_stage(keys: Iterable[str]) -> dict[str, str]:
    """Return stage -> the artefacts of these keys, as text."""
    by_stage: dict[str, list[str]] = {}
    for key in sorted(keys):
        stage, _, name = key.partition("/")
        by_stage.setdefault(stage, []).append(name)
    return {stage: ", ".join(names) for stage, names in by_stage.items()}


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
            value = {str(number): entry for number, entry in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[above + name] = value
    return flat


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "unset" if value is None else str(value)
