"""Find the files of CBIS-DDSM in each folder layout in which it is distributed. No Ray, no pixels.

    classic      <case>/<StudyUID>/<SeriesUID>/000000.dcm, as in the CSVs
    NBIA         <case>/07-20-2016-DDSM-74994/1-full mammogram images-24515/000000.dcm
    NBIA, newer  <case>/07-20-2016-DDSM-NA-74994/1.000000-full mammogram images-24515/1-1.dcm
    JPEG mirror  jpeg/<SeriesUID>/1-263.jpg, and csv/dicom_info.csv

NBIA's folder names end in the last five digits of the UIDs. Any folders may stand above these.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from mammoflow.data.releases.listing import SourceFiles, read_csv

ROOTS = ("", "CBIS-DDSM", "csv")
"""Folders of the source that may hold the CSVs."""
FILM, MASK, CROP = "full mammogram images", "ROI mask images", "cropped images"
"""Series descriptions, in folder names and in dicom_info.csv."""

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
    """Name of the folder, or the series' description."""
    folder: str


@dataclass(frozen=True, slots=True)
class Tree:
    """Files of a source, looked up by the CSVs' paths `<case>/<StudyUID>/<SeriesUID>/<file>`."""

    files: SourceFiles
    by_uid: dict[str, list[str]]
    """Name of a folder with images -> its paths."""
    by_case: dict[str, list[_Series]]
    """Case folder, or PatientID in the JPEG mirror -> its series."""

    def film(self, path: str) -> str:
        """Return the relative path of a film named in the CSVs; the CSV's own path if it is absent."""
        return next((file for folder in self._folders(path, (FILM,)) if (file := self._pick(folder, path))), path)

    def masks(self, mask: str, crop: str) -> list[str]:
        """Return files that may be a lesion's mask, most likely first: those the CSV names, then their neighbours."""
        named, beside = [], []
        for path in (mask, crop):
            folders = self._folders(path, (MASK, CROP))
            named.append(next((file for folder in folders if (file := self._pick(folder, path))), path))
            beside += [file for folder in folders for file in self.files.inside(folder, _IMAGES)]
        return list(dict.fromkeys([*named, *beside]))

    def _folders(self, path: str, descriptions: tuple[str, ...]) -> list[str]:
        """Return the folders of a series: by the CSV's path, by UID, by the UIDs' last digits, or by description."""
        folder = path.rpartition("/")[0]
        exact = [full for root in ROOTS if (full := str(PurePosixPath(root, folder))) in self.files.folders]
        case, study, series = (*folder.split("/"), "", "")[:3]
        of_case = self.by_case.get(case, [])
        by_digits = [
            item.folder
            for item in of_case
            if item.study.endswith(f"-{study[-5:]}") and item.name.endswith(f"-{series[-5:]}")
        ]
        for matches in (exact, self.by_uid.get(series, []), by_digits):
            if len(matches) == 1:
                return matches
        return [item.folder for kind in descriptions for item in of_case if kind in item.name]

    def _pick(self, folder: str, path: str) -> str | None:
        """Return the file of a folder that a CSV path means: by name, by number (000001 is 1-2), or the only one."""
        images = self.files.inside(folder, _IMAGES)
        name = path.rpartition("/")[2]
        number = name.partition(".")[0]
        for candidate in (name, f"1-{int(number) + 1}.dcm" if number.isdigit() else name):
            if f"{folder}/{candidate}" in images:
                return f"{folder}/{candidate}"
        return images[0] if len(images) == 1 else None


def index(files: SourceFiles) -> Tree:
    """Index a source by case folders, UIDs and the JPEG mirror's table.

    Raises:
        SourceError: the mirror's table can't be read, or lacks a column.
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
