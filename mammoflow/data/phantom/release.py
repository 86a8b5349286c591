"""A drawn release, in whichever layout: who is in it, one woman's files, the metadata of all. Returns bytes only.

`plan` decides who is in it, `draw` draws one woman's films, `metadata` turns all their rows into the tables.
"""

from collections.abc import Iterator

from mammoflow.config import PhantomConfig
from mammoflow.data.phantom import cases, film
from mammoflow.data.phantom.cases import Patient
from mammoflow.data.phantom.layouts import LAYOUTS
from mammoflow.data.phantom.layouts.layout import FilmFiles, Rows

__all__ = ["FilmFiles", "Patient", "draw", "metadata", "plan"]


def plan(config: PhantomConfig, seed: int) -> tuple[Patient, ...]:
    """Decide who is in the release and what each film shows; cheap, no pixels.

    Returns:
        One `Patient` per `config.patients`. The first N of a larger plan are the plan of N.
    """
    women = LAYOUTS[config.layout].women
    return tuple(women(patient, seed) for patient in cases.plan(config, seed))


def draw(patient: Patient, config: PhantomConfig, seed: int) -> Iterator[FilmFiles]:
    """Draw one woman of `plan(config, seed)`, film by film: real sizes would not fit in memory together.

    Returns:
        Of each film its files, to be read before the next film is asked for, and its rows; the same seed gives the
        same bytes.
    """
    layout = LAYOUTS[config.layout]
    for each in patient.films:
        drawn = film.draw(each, patient, config, seed, digitised=layout.digitised)
        yield layout.film_files(patient, each, drawn, seed)


def metadata(rows: Rows, config: PhantomConfig) -> dict[str, bytes]:
    """Return the release's tables by path, from the rows of any number of women in any order."""
    return LAYOUTS[config.layout].metadata(rows)
