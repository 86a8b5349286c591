"""Every error that mammoflow raises on purpose. Imports the standard library only.

    MammoflowError
    ├── ConfigError          a setting is out of its range, or an unknown name
    │   └── SpecError        a top-layer spec that can't be read or doesn't fit the feature map
    ├── SourceError          the source folder does not hold the named release
    ├── ImageError           one image can't be used; becomes a row in quarantine, never a crash
    │   ├── DecodeError      its file can't be turned into pixels
    │   └── PatchError       no patches can be cut from it
    ├── QuarantineError      more images than allowed went to quarantine
    ├── SplitError           a split leaks, or lacks a class
    ├── LakeError            an artefact is missing, damaged or can't be written
    ├── TrackingError        the tracking server or registry can't be reached, or lacks a run or model
    ├── TrainingError        a training run can't start or failed
    │   ├── ModelError       one of the models trained together can't go on (non-finite loss); the others can
    │   └── DeviceMemoryError   the models trained together do not fit in the device's memory
    └── PreflightError       the machine lacks something the job needs: disk, GPUs, versions

Every message names the value, the limit and the remedy.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class MammoflowError(Exception):
    """Base class of all errors that users see; jobs print them without a traceback."""


class ConfigError(MammoflowError):
    """A setting is out of its range, or names something unknown."""


class SpecError(ConfigError):
    """A top-layer spec can't be read, or shrinks the feature map below 1x1."""


class SourceError(MammoflowError):
    """The source folder does not hold the named release, or lacks a file or column."""


class ImageError(MammoflowError):
    """One image can't be used; at the Ray boundary the error becomes a row in quarantine.

    The code that finds the fault gives the reason alone. Whoever handles one file adds its path, once (`naming`).
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        """Return the path, if known, and the reason."""
        return f"{self.path}: {self.reason}" if self.path else self.reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        """Pickle the path that was added after construction, too."""
        return type(self), (self.reason, self.path)


class DecodeError(ImageError):
    """An image file can't be turned into pixels."""


class PatchError(ImageError):
    """No patches can be cut from an image."""


class QuarantineError(MammoflowError):
    """A larger share of images than allowed went to quarantine."""


class SplitError(MammoflowError):
    """A split leaks a patient or film, or lacks a class."""


class LakeError(MammoflowError):
    """An artefact of the lake is missing, damaged or can't be written."""


class TrackingError(MammoflowError):
    """The tracking server can't be reached, or lacks a run or model."""


class TrainingError(MammoflowError):
    """A training run can't start or failed."""


class ModelError(TrainingError):
    """One of the models trained together can't go on; the others can."""

    def __init__(self, message: str, model: str) -> None:
        """Keep the model's name in the search or run beside the message."""
        super().__init__(message, model)  # both, so that the error survives pickling
        self.model = model

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[0])


class DeviceMemoryError(TrainingError):
    """The models trained together do not fit in the device's memory."""


class PreflightError(MammoflowError):
    """The machine lacks something the job needs: disk space, GPUs, a package's version."""


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Name the file in image errors raised inside the block, unless they name one already."""
    try:
        yield
    except ImageError as error:
        error.path = error.path or path
        raise
