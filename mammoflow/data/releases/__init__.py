"""List the images of a release in one table of exams: a module per release, a dict as registry. No Ray, no pixels.

To add a release, write a module with `read(source) -> Listing` and an entry in `RELEASES`.
"""

from collections.abc import Callable

from mammoflow.data.releases import cbis_ddsm, cbis_trees, cmmd, csv_folder, inbreast, patients, rsna, vindr
from mammoflow.data.releases.listing import Listing, Release, scan
from mammoflow.errors import ConfigError, SourceError

AUTO = "auto"
"""Value of `Config.dataset`: recognise the release by its files."""

RELEASES: dict[str, Release] = {
    "cbis_ddsm": Release(
        read=cbis_ddsm.read, marks=tuple(cbis_ddsm.CSV_FILES), roots=cbis_trees.ROOTS, films=cbis_ddsm.FILMS
    ),
    "inbreast": Release(read=inbreast.read, marks=inbreast.TABLES, roots=inbreast.ROOTS, films=inbreast.FILMS),
    "vindr": Release(read=vindr.read, marks=(vindr.BREASTS,), films=vindr.FILMS),
    "cmmd": Release(read=cmmd.read, marks=(cmmd.TABLE,), roots=cmmd.ROOTS, films=cmmd.FILMS),
    "rsna": Release(read=rsna.read, marks=(rsna.TABLE,), films=rsna.FILMS),
    "csv_folder": Release(read=csv_folder.read, marks=(csv_folder.IMAGES,)),
}
"""Releases by name, as in `Config.dataset`."""


def read(dataset: str, source: str, salt: Callable[[], str] = patients.no_salt) -> Listing:
    """List the images of a release with their labels and lesions, without decoding any.

    Args:
        dataset: a name of `RELEASES`, or `auto`.
        source: folder or URL of the release.
        salt: returns the salt of patient hashes; called only if images lack a patient id.

    Raises:
        ConfigError: an unknown name.
        SourceError: the folder is not that release, or a salt is needed but not available.
    """
    return patients.fill(RELEASES[resolve(dataset, source)].read(source), salt)


def resolve(dataset: str, source: str | None, phantoms: str = "cbis_ddsm") -> str:
    """Return the name of a source's release: as configured, or recognised by its files.

    Args:
        dataset: a name of `RELEASES`, or `auto`.
        source: folder or URL of the release; None if phantoms are drawn.
        phantoms: the layout of the phantoms.

    Raises:
        ConfigError: an unknown name, or one that differs from the phantoms' layout.
        SourceError: `auto`, and the files match no release, or several.
    """
    if dataset != AUTO and dataset not in RELEASES:
        names = ", ".join(RELEASES)
        raise ConfigError(f"dataset is {dataset!r}, but must be one of {AUTO}, {names}; pass --dataset")
    if source is None and dataset not in (AUTO, phantoms):
        raise ConfigError(
            f"dataset is {dataset!r}, but phantoms are drawn in the layout {phantoms!r}; give the release's folder "
            "with --source, or draw phantoms like it with --phantoms.layout"
        )
    if source is None:
        return phantoms
    if dataset != AUTO:
        return dataset
    files = scan(source)
    matches = [name for name, kind in RELEASES.items() if any(files.locate(mark, kind.roots) for mark in kind.marks)]
    if len(matches) != 1:
        marks = "; ".join(f"{name} by {' or '.join(kind.marks)}" for name, kind in RELEASES.items())
        verdict = f"may be {' or '.join(matches)}" if matches else "holds no known release"
        raise SourceError(
            f"{source} {verdict} (recognised: {marks}); give --source the folder that holds these, or name the release "
            "with --dataset"
        )
    return matches[0]
