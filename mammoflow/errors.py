"""Every error that mammoflow raises on purpose. Imports nothing.

    MammoflowError
    ├── ConfigError          a setting is out of its range, or an unknown name
    │   └── SpecError        a top-layer spec that can't be read or doesn't fit the feature map
    ├── SourceError          the folder given is not the release it was said to be
    ├── ImageError           one image can't be used; becomes a row in quarantine, never a crash
    │   ├── DecodeError      its file can't be turned into pixels
    │   └── PatchError       no patch can be cut from it
    ├── QuarantineError      more images than allowed went to quarantine
    ├── SplitError           a split that leaks, or one without enough of a class
    ├── LakeError            an artefact that is missing, damaged or can't be written
    ├── TrackingError        the tracking server or registry can't be reached or lacks what is asked
    ├── TrainingError        a training run that can't start or went wrong
    │   ├── ModelError       one of the models trained together can't go on (non-finite loss); the others can
    │   └── DeviceMemoryError   what trains together does not fit in the device's memory
    └── PreflightError       what the job needs is not here: disk, GPUs, versions

Every message names the value, the limit and the remedy.
"""


class MammoflowError(Exception):
    """Base of all errors that a user of mammoflow may meet; jobs print it without a traceback."""


class ConfigError(MammoflowError):
    """A setting is out of its range, or names something unknown."""


class SpecError(ConfigError):
    """A top-layer spec can't be read, or shrinks the feature map below 1x1."""


class SourceError(MammoflowError):
    """The source folder is not the release it was said to be, or lacks a file or column."""


class ImageError(MammoflowError):
    """One image can't be used. At the Ray boundary it becomes a row in quarantine."""


class DecodeError(ImageError):
    """An image file can't be turned into pixels."""


class PatchError(ImageError):
    """No patch can be cut from this image."""


class QuarantineError(MammoflowError):
    """A larger share of images than allowed went to quarantine."""


class SplitError(MammoflowError):
    """A split that leaks a patient or film, or lacks a class."""


class LakeError(MammoflowError):
    """An artefact of the lake is missing, damaged or can't be written."""


class TrackingError(MammoflowError):
    """The tracking server can't be reached, or lacks the run or model asked for."""


class TrainingError(MammoflowError):
    """A training run can't start, or went wrong."""


class ModelError(TrainingError):
    """A model can't go on; those that train beside it can."""

    def __init__(self, message: str, model: str) -> None:
        """Name the model, as the run that trains it does."""
        super().__init__(message, model)  # both, so that it can be pickled
        self.model = model

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[0])


class DeviceMemoryError(TrainingError):
    """What trains together does not fit in the device's memory."""


class PreflightError(MammoflowError):
    """What the job needs is not here: disk space, GPUs, a package's version."""
