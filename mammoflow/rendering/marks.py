"""Whether images are phantoms, and the mark that every figure of them carries. No Ray, no torch."""

from mammoflow.lake import Artefact

PHANTOM_MARK = "phantom data, no clinical meaning"
_INPUTS_SINCE = 2  # version of the layout that records what an artefact was made from
UNKNOWN = "whether of phantoms is not known here"
"""Mark of figures whose images are not in the lake, or don't record what they were made from."""

_WITH_INPUTS = 2  # version of the lake since which an artefact records what it was made from


def is_phantoms(images: Artefact) -> bool:
    """Tell whether mammoflow drew these images: whether the artefact was made from phantoms.

    Raises:
        LakeError: the artefact is not complete.
    """
    return bool(images.input_of("phantoms"))


def mark_of(images: Artefact) -> str:
    """Return the mark of these images; empty for those of a release."""
    if not images.done or images.record().schema < _WITH_INPUTS:
        return UNKNOWN
    return PHANTOM_MARK if is_phantoms(images) else ""
