"""From a release on disk to one table of exams: a module per release, a dict as registry. No Ray, no pixels.

A new release is a module with `read(source) -> Listing`, and a line in `RELEASES`.
"""

from collections.abc import Callable

from mammoflow.data.releases import cbis_ddsm, cbis_trees, cmmd, csv_folder, inbreast, patients, rsna, vindr
from mammoflow.data.releases.listing import Listing, Release, scan
from mammoflow.errors import ConfigError, SourceError

AUTO = "auto"
"""As `Config.dataset`: the release is recognised by its files."""

RELEASES: dict[str, Release] = {
    "cbis_ddsm": Release(read=cbis_ddsm.read, marks=tuple(cbis_ddsm.CSV_FILES), roots=cbis_trees.ROOTS),
    "inbreast": Release(read=inbreast.read, marks=inbreast.TABLES, roots=inbreast.ROOTS),
    "vindr": Release(read=vindr.read, marks=(vindr.BREASTS,)),
    "cmmd": Release(read=cmmd.read, marks=(cmmd.TABLE,), roots=cmmd.ROOTS),
    "rsna": Release(read=rsna.read, marks=(rsna.TABLE,)),
    "csv_folder": Release(read=csv_folder.read, marks=(csv_folder.IMAGES,)),
}
"""Name, as in `Config.dataset`, to how a release is read."""


def read(dataset: str, source: str, salt: Callable[[], str] = patients.no_salt) -> Listing:
    """List the images of a release with their labels and lesions, decoding no image.

    Args:
        dataset: a name of `RELEASES`, or `auto`.
        source: folder or URL of the release.
        salt: of patients' hashes; asked for only where images have no patient key of their own.

    Raises:
        ConfigError: an unknown name.
        SourceError: the folder is not that release, or a salt is needed and there is none.
    """
    return patients.fill(RELEASES[resolve(dataset, source)].read(source), salt)


def resolve(dataset: str, source: str | None, phantoms: str = "cbis_ddsm") -> str:
    """Return the name of the release that a source is: given, or by its files.

    Args:
        dataset: a name of `RELEASES`, or `auto`.
        source: folder or URL of the release; None where phantoms are drawn.
        phantoms: the layout that they are drawn in.

    Raises:
        ConfigError: an unknown name, or another than the phantoms'.
        SourceError: `auto`, and the files are those of no release, or of several.
    """
    if dataset != AUTO and dataset not in RELEASES:
        known = ", ".join(RELEASES)
        raise ConfigError(f"dataset is {dataset!r}, but must be one of {AUTO}, {known}; pass --dataset")
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
    names = [name for name, kind in RELEASES.items() if any(files.locate(mark, kind.roots) for mark in kind.marks)]
    if len(names) != 1:
        looked = "; ".join(f"{name} by {' or '.join(kind.marks)}" for name, kind in RELEASES.items())
        raise SourceError(
            f"{source} {'may be ' + ' or '.join(names) if names else 'holds no release that is known'} ({looked}); "
            "give --source the folder that holds these, or name the release with --dataset"
        )
    return names[0]
