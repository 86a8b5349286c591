"""Settings of data: phantoms, films into images, splits, images into patches.

Units stand in each field's docstring. Sizes are height x width, rows x columns [px].
"""

from dataclasses import dataclass
from typing import Literal

from mammoflow.config.fields import require

CLASSES = (
    "background",
    "malignant_mass",
    "benign_mass",
    "malignant_calcification",
    "benign_calcification",
)
"""The paper's five patch classes; a patch's label is its index in the list (`PatchConfig.classes`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomConfig:
    """Synthetic mammograms, drawn when a run has no `--source`. No claim to clinical realism."""

    layout: Literal["cbis_ddsm", "inbreast", "csv_folder"] = "cbis_ddsm"
    """How they lie on disk. `inbreast` and `csv_folder` are digital mammograms, and have films without lesions too."""
    patients: int = 200
    """Patients; on average about 2.0 films each as CBIS-DDSM, 3.6 in the other layouts. 0 draws none: the run
    needs `--source`."""
    height: int = 768
    """Rows of a film as drawn [px]; real films have 3000-7000."""
    width: int = 600
    """Columns of a film as drawn [px]."""
    contrast: float = 1.0
    """Factor on the contrast of every lesion; lower is harder."""
    compressed: float = 0.3
    """Share of films stored compressed (RLE, JPEG 2000, JPEG lossless in turn) [0-1]."""
    two_series: float = 0.02
    """Share of films that come as two series, once under mass, once under calcification [0-1]; in the other layouts
    of films with both kinds of lesion."""
    official_test: float = 0.0
    """Share of patients in the release's own test part [0-1]; above 0, some of CBIS-DDSM's are in its training part
    too, and csv_folder has a column `split`. INbreast has no parts."""

    def __post_init__(self) -> None:
        """Refuse what can't be drawn."""
        require(self.patients >= 0, "phantoms.patients", self.patients, "0 or more", "0 draws none")
        require(self.height >= 128, "phantoms.height", self.height, "at least 128 px", "draw larger films")
        require(self.width >= 96, "phantoms.width", self.width, "at least 96 px", "draw larger films")
        require(self.contrast >= 0, "phantoms.contrast", self.contrast, "0 or more", "use 1 for the default")
        for name in ("compressed", "two_series", "official_test"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"phantoms.{name}", share, "between 0 and 1", "it is a share")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """How a film becomes an image of the lake. Source: paper, methods; reference sizes 1152x896."""

    height: int = 1152
    """Rows after reduction [px]."""
    width: int = 896
    """Columns after reduction [px]."""
    fit: Literal["stretch", "pad"] = "stretch"
    """`stretch` ignores the aspect ratio as the reference code does; `pad` keeps it and adds air."""
    intensity: Literal["full_range", "window", "percentile"] = "full_range"
    """Which grey values are spread over 0-65535: all that the stored bits can hold, as the reference code does; those
    of the file's window or VOI LUT (DICOM only); or those between the film's percentiles .5 and 99.5."""
    window: int = 0
    """Which one, where a file has several windows."""
    face: Literal["as_is", "right"] = "as_is"
    """`right` mirrors films, and the outlines on them, so that every breast points right: by the file's
    PatientOrientation, or where it gives none, by the brighter half."""
    reduced: bool = False
    """Decode JPEG 2000 (HTJ2K too) only to the smallest resolution that is not below the target size, then reduce by
    area as ever. On phantoms of 3328x2560 px it is 3.8 times faster and changes pixels by 25 grey levels of 65535 in
    the mean, by 7,600 at most, at the hard edges of labels. No effect on other files, under the intensity `percentile`,
    and where padding has to be found."""

    def __post_init__(self) -> None:
        """Refuse sizes that no stride-32 trunk can take."""
        for name in ("height", "width"):
            size = getattr(self, name)
            require(64 <= size <= 16384, f"images.{name}", size, "64 to 16384 px", "choose a size in between")
        require(self.window >= 0, "images.window", self.window, "0 or more", "0 is the first")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """Who is in train, val and test; always by patient, stratified on cancer."""

    protocol: Literal["paper", "70-30", "official", "given"] = "paper"
    """`paper` re-splits the training release, as the paper does CBIS-DDSM's; `70-30` re-splits the whole release, 30%
    of its patients in test, as the paper does INbreast's; `official` keeps the release's own test part, less patients
    in both; `given` takes every image's split from the source. All but `given` draw `val` from who is not in test."""
    manifest: str | None = None
    """CSV of `patient_id, split`, as each ingest writes one (splits.csv beside its images): the splits are taken from
    there, whatever the protocol. Its contents, not its path, enter fingerprints."""
    test: float = 0.15
    """Share of patients in test under `paper` [0-1]."""
    val: float = 0.10
    """Share of the remaining patients in validation [0-1]."""
    patients: int | None = None
    """Most patients in train and val together, stratified on cancer, smaller caps being nested subsets; others who are
    not in test are left out. None takes all of them."""

    def __post_init__(self) -> None:
        """Refuse shares that leave a split empty."""
        for name in ("test", "val"):
            share = getattr(self, name)
            require(0 < share < 1, f"splits.{name}", share, "between 0 and 1, both excluded", "it is a share")
        if self.patients is not None:
            require(
                self.patients >= 4, "splits.patients", self.patients, "at least 4", "train and val need both classes"
            )
            require(
                self.protocol != "given" and self.manifest is None,
                "splits.patients",
                self.patients,
                "left out where splits are given",
                "leave the others out of the source",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchConfig:
    """How labelled patches are cut from images. Source: paper 3.1.1."""

    set: Literal["S1", "S10"] = "S10"
    """`S1`: one patch centred on each ROI; `S10`: `per_lesion` around each. As many background patches."""
    side: int = 224
    """Patch side P [px]."""
    per_lesion: int = 10
    """Patches drawn for each lesion in S10, and background patches beside them."""
    min_overlap: float = 0.9
    """Least lesion overlap, lesion pixels inside / min(P * P, lesion area) [0-1]."""
    min_tissue: float = 0.5
    """Least share of breast tissue in a background patch [0-1]."""
    classes: tuple[str, ...] = CLASSES
    """Patch classes; the first is background, the others are <pathology>_<kind>."""

    def __post_init__(self) -> None:
        """Refuse what can't be sampled."""
        require(self.side >= 16, "patches.side", self.side, "at least 16 px", "cut larger patches")
        require(self.per_lesion >= 1, "patches.per_lesion", self.per_lesion, "at least 1", "draw more patches")
        for name in ("min_overlap", "min_tissue"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"patches.{name}", share, "between 0 and 1", "it is a share")
        require(
            len(self.classes) >= 2 and self.classes[0] == "background" and len({*self.classes}) == len(self.classes),
            "patches.classes",
            self.classes,
            "two or more different names, `background` first",
            f"the paper's are {CLASSES}",
        )
