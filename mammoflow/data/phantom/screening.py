"""From women with lesions, as in CBIS-DDSM, to examined women: both views, and mostly the other breast.

NumPy only; no pixels, no files. What is added to one woman depends on the seed and her number alone.
"""

from dataclasses import replace

import numpy as np

from mammoflow.data.phantom import marginals
from mammoflow.data.phantom.cases import Film, Patient, Series, draw_lesion
from mammoflow.data.phantom.marginals import BENIGN, pick
from mammoflow.data.phantom.seeds import generator

_OTHER = {"LEFT": "RIGHT", "RIGHT": "LEFT"}


def screened(patient: Patient, seed: int) -> Patient:
    """Return a woman of the plan with the films that an examination takes.

    A breast that the plan shows in one view gets the other, with the same lesions. Most women of whom the plan has one
    breast get the other one too: normal, or with one benign lesion.

    Source: INbreast (Moreira et al. 2012), where 90 of 115 women have four films and the others two.
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
    """Return a breast's CC and MLO film, the one that is missing made from the other."""
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
