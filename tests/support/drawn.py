"""A whole phantom release in memory, for tests."""

from mammoflow.config import PhantomConfig
from mammoflow.data.phantom import release


def drawn_release(config: PhantomConfig, seed: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the image and outline files and the tables of a release, by path."""
    files, rows = {}, {}
    for patient in release.plan(config, seed):
        for film in release.draw(patient, config, seed):
            for path, data in film.files:
                assert path not in files, "two files want one place"
                files[path] = data
            for name, some in film.rows.items():
                rows.setdefault(name, []).extend(some)
    return files, release.metadata(rows, config)
