"""Complete the films of planned patients to full screening examinations: both views, usually of both breasts.

NumPy only; no pixels, no files. The films added to a patient depend on the seed and the patient's number alone.
"""

from dataclasses import replace

import numpy as np

from mammoflow.data.phantom import marginals
from mammoflow.data.phantom.cases import Film, Patient, Series, draw_lesion
from mammoflow.data.phantom.marginals import BENIGN, pick
from mammoflow.data.phantom.seeds import generator

_OTHER = {"LEFT": "RIGHT", "RIGHT": "LEFT"}


def screened(patient: Patient, seed: int) -> Patient:
    """Return a patient of the plan with the films of a full examination.

    A breast planned in one view gets the other, with the same lesions. Most patients with only one planned breast also
    get the other, which is normal or has one benign lesion.

    Source: INbreast (Moreira et al. 2012): 90 of 115 patients have four films, the others two.
    """
    rng = generator(seed, patient.patient_id, "screening")
    films: list[Film] = []
    sides = sorted({film.side for film in patient.films})
    for side in sides:
        films += _both_views([film for film in patient.films if film.side == side])
    if len(sides) == 1 and rng.random() < marginals.BOTH_BREASTS:
        series = _other_breast(patient.films[0].series[0].part, rng)
        films += [_moved(film, _OTHER[film.side], film.view, series) for film in films]
    return replace(patient, films=tuple(films))


def _both_views(films: list[Film]) -> list[Film]:
    """Return a breast's CC and MLO films, deriving a missing one from the other."""
    by_view = {film.view: film for film in films}
    return [
        by_view[view] if view in by_view else _moved(films[0], films[0].side, view, films[0].series)
        for view in ("CC", "MLO")
    ]


def _other_breast(part: str, rng: np.random.Generator) -> tuple[Series, ...]:
    if rng.random() < marginals.NORMAL:
        return ()
    kind = pick(marginals.KINDS, rng.random())
    return (Series(kind=kind, part=part, lesions=(draw_lesion(1, kind, BENIGN, rng),)),)


def _moved(film: Film, side: str, view: str, series: tuple[Series, ...]) -> Film:
    patient_id = film.film_id.removesuffix(f"_{film.side}_{film.view}")
    return replace(film, film_id=f"{patient_id}_{side}_{view}", side=side, view=view, series=series)
