"""Draw a release in any layout: plan its patients, draw their films, write its tables. Returns bytes only.

`plan` decides the patients and films, `draw` draws one patient's films, `metadata` turns all rows into tables.
"""

from collections.abc import Iterator

from mammoflow.config import PhantomConfig
from mammoflow.data.phantom import cases, film
from mammoflow.data.phantom.cases import Patient
from mammoflow.data.phantom.layouts import LAYOUTS
from mammoflow.data.phantom.layouts.layout import FilmFiles, Rows

__all__ = ["FilmFiles", "Patient", "draw", "metadata", "plan"]


def plan(config: PhantomConfig, seed: int) -> tuple[Patient, ...]:
    """Decide the patients of the release and what each film shows; cheap, no pixels.

    Returns:
        `config.patients` patients. The first N of a larger plan equal a plan of N.
    """
    examine = LAYOUTS[config.layout].examine
    return tuple(examine(patient, seed) for patient in cases.plan(config, seed))


def draw(patient: Patient, config: PhantomConfig, seed: int) -> Iterator[FilmFiles]:
    """Draw one patient of `plan(config, seed)`, a film at a time to save memory.

    Yields:
        Each film's files, to be consumed before the next film is drawn, and its rows. The same seed gives the same
        bytes.
    """
    layout = LAYOUTS[config.layout]
    for planned in patient.films:
        drawn = film.draw(planned, patient, config, seed, digitised=layout.digitised)
        yield layout.film_files(patient, planned, drawn, seed)


def metadata(rows: Rows, config: PhantomConfig) -> dict[str, bytes]:
    """Return the release's tables by path, from the rows of any patients in any order."""
    return LAYOUTS[config.layout].metadata(rows)
