"""Where the files of CBIS-DDSM lie, in every tree in which users have them. No Ray, no pixels.

    classic      <case>/<StudyUID>/<SeriesUID>/000000.dcm, as in the CSVs
    NBIA         <case>/07-20-2016-DDSM-74994/1-full mammogram images-24515/000000.dcm
    NBIA, newer  <case>/07-20-2016-DDSM-NA-74994/1.000000-full mammogram images-24515/1-1.dcm
    JPEG mirror  jpeg/<SeriesUID>/1-263.jpg, and csv/dicom_info.csv

The five digits of NBIA's folders are the last ones of the UIDs. Any folder may stand above these.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from mammoflow.data.releases.listing import SourceFiles, read_csv

ROOTS = ("", "CBIS-DDSM", "csv")
"""Where the CSVs may stand within the source."""
FILM, MASK, CROP = "full mammogram images", "ROI mask images", "cropped images"
"""Descriptions of series, in folders' names and in dicom_info.csv."""

_INFO = "dicom_info.csv"
_INFO_COLUMNS = ("PatientID", "SeriesDescription", "image_path")
_CASE = re.compile(r"(?:Mass|Calc)-(?:Training|Test)_P_")
_IMAGES = (".dcm", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class _Series:
    """A folder of one series."""

    study: str
    """Name of the folder above it; empty in the JPEG mirror."""
    name: str
    """Its own name, or its description."""
    folder: str


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a source, found by the CSVs' paths `<case>/<StudyUID>/<SeriesUID>/<file>`."""

    files: SourceFiles
    by_uid: dict[str, list[str]]
    """Name of a folder of images -> where it is."""
    by_case: dict[str, list[_Series]]
    """Case folder, or PatientID in the JPEG mirror -> its series."""

    def film(self, path: str) -> str:
        """Return where a film of the CSVs is in the source; the CSV's own path where it is nowhere."""
        return next((found for folder in self._folders(path, (FILM,)) if (found := self._pick(folder, path))), path)

    def masks(self, mask: str, crop: str) -> list[str]:
        """Return the files that may be a lesion's mask, the likeliest first: what the CSV names, then those beside."""
        named, beside = [], []
        for path in (mask, crop):
            folders = self._folders(path, (MASK, CROP))
            named.append(next((found for folder in folders if (found := self._pick(folder, path))), path))
            beside += [file for folder in folders for file in self.files.inside(folder, _IMAGES)]
        return list(dict.fromkeys([*named, *beside]))

    def _folders(self, path: str, descriptions: tuple[str, ...]) -> list[str]:
        """Return the folders of a series: as the CSV says, by its UID, by the UIDs' digits, or by case and kind."""
        folder = path.rpartition("/")[0]
        exact = [known for root in ROOTS if (known := str(PurePosixPath(root, folder))) in self.files.folders]
        case, study, series = (*folder.split("/"), "", "")[:3]
        here = self.by_case.get(case, [])
        digits = [
            one.folder for one in here if one.study.endswith(f"-{study[-5:]}") and one.name.endswith(f"-{series[-5:]}")
        ]
        by_uid = self.by_uid.get(series, [])
        for found in (exact, by_uid, digits):
            if len(found) == 1:
                return found
        return [one.folder for kind in descriptions for one in here if kind in one.name]

    def _pick(self, folder: str, path: str) -> str | None:
        """Return the file of a folder that the CSV means: by name, by number (000001 is 1-2), or the only one."""
        images = self.files.inside(folder, _IMAGES)
        name = path.rpartition("/")[2]
        number = name.partition(".")[0]
        for known in (name, f"1-{int(number) + 1}.dcm" if number.isdigit() else name):
            if f"{folder}/{known}" in images:
                return f"{folder}/{known}"
        return images[0] if len(images) == 1 else None


def index(files: SourceFiles) -> Tree:
    """Index a source by case folders, UIDs and the JPEG mirror's table.

    Raises:
        SourceError: that table can't be read, or lacks a column.
    """
    by_uid: dict[str, list[str]] = {}
    by_case: dict[str, list[_Series]] = {}
    for folder, names in files.folders.items():
        if not any(name.endswith(_IMAGES) for name in names):
            continue
        parts = folder.split("/")
        by_uid.setdefault(parts[-1], []).append(folder)
        for depth, part in enumerate(parts[:-2]):
            if _CASE.match(part):
                by_case.setdefault(part, []).append(_Series(parts[depth + 1], parts[-1], folder))
    info = files.locate(_INFO, ROOTS)
    for row in read_csv(files, info, _INFO_COLUMNS) if info else ():
        inner = row["image_path"].partition("/")[2]  # the table's paths begin with the mirror's own top folder
        folder = inner.rpartition("/")[0]
        series = _Series("", row["SeriesDescription"], folder)
        if files.has(inner) and series not in by_case.setdefault(row["PatientID"], []):
            by_case[row["PatientID"]].append(series)
    return Tree(files, by_uid, by_case)
