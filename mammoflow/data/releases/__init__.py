"""From a release on disk to one table of exams: a module per release, a dict as registry. No Ray, no pixels.

A new release is a module with `read(source) -> Listing` and a line in `RELEASES`.
"""

from collections.abc import Callable

from mammoflow.data.releases import cbis_ddsm
from mammoflow.data.releases.listing import Listing
from mammoflow.errors import ConfigError

RELEASES: dict[str, Callable[[str], Listing]] = {
    "cbis_ddsm": cbis_ddsm.read,
}
"""Name, as in `Config.dataset`, to the function that reads its metadata."""


def read(dataset: str, source: str) -> Listing:
    """List the images of a release with their labels and lesions, opening no image.

    Args:
        dataset: a name of `RELEASES`.
        source: folder or URL of the release.

    Raises:
        ConfigError: an unknown name.
        SourceError: the folder is not that release.
    """
    return find(dataset)(source)


def find(dataset: str) -> Callable[[str], Listing]:
    """Return the function that reads a release's metadata.

    Raises:
        ConfigError: an unknown name.
    """
    if dataset not in RELEASES:
        raise ConfigError(f"dataset is {dataset!r}, but must be one of {', '.join(sorted(RELEASES))}; pass --dataset")
    return RELEASES[dataset]
