"""Plan a drawn release: its patients, films, series and lesions, before any pixel is drawn.

NumPy only; no pixels, no files. Frequencies follow the real release (marginals.py). A patient depends on the seed and
their number alone, so a larger plan starts with the same patients.
"""

from dataclasses import dataclass

import numpy as np

from mammoflow.config import PhantomConfig
from mammoflow.data.phantom import marginals
from mammoflow.data.phantom.marginals import BENIGN, CALCIFICATION, MALIGNANT, MASS, pick
from mammoflow.data.phantom.seeds import generator, spread

CODECS = ("rle", "jpeg2000", "jpeg-lossless")
"""Codecs of compressed films; all others are stored as `raw`."""

_LOOK = (4.6, 2.2)
"""Kumaraswamy parameters of a malignant lesion's look; a benign one mirrors it. The two overlap, so even a perfect
classifier makes errors."""

_DIAMETERS = {MASS: (0.09, 0.17), CALCIFICATION: (0.07, 0.13)}
"""Smallest and largest diameter of a mass or cluster [share of film height]."""

_TAGGED = 0.85
"""Share of films whose files carry Laterality and ViewPosition [0-1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """One abnormality of a breast; every film that shows it shares this object."""

    number: int
    """`abnormality id` of the CSV, from 1, within its breast and kind."""
    kind: str
    """`mass` or `calcification`."""
    pathology: str
    """MALIGNANT, BENIGN or BENIGN_WITHOUT_CALLBACK."""
    look: float
    """From 0 (smooth, or coarse and round) to 1 (spiculated, or fine and pleomorphic)."""
    shape: str
    """`mass shape` or `calc type`."""
    edge: str
    """`mass margins` or `calc distribution`."""
    assessment: int
    """BI-RADS assessment 0-5."""
    subtlety: int
    """1 (hard to see) to 5 (obvious)."""
    diameter: float
    """Of the mass or cluster [share of film height]."""
    depth: float
    """Position between chest wall (0) and nipple (1)."""
    across: float
    """Position between the upper (0) and lower (1) end of the outline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One appearance of a film in the release: under masses or under calcifications, in one official part."""

    kind: str
    part: str
    """`train` or `test`."""
    lesions: tuple[Lesion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One film: a side and a view of one patient."""

    film_id: str
    """E.g. P_00001_LEFT_CC."""
    side: str
    """LEFT or RIGHT."""
    view: str
    """CC or MLO."""
    codec: str
    """`raw` or one of CODECS."""
    tagged: bool
    """Whether its files carry Laterality and ViewPosition."""
    series: tuple[Series, ...]
    """One, or two with the same pixels; none if the film shows no lesion."""

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """All lesions of the film, over its series."""
        return tuple(lesion for series in self.series for lesion in series.lesions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """One patient and all their films."""

    patient_id: str
    """E.g. P_00001."""
    density: int
    """BI-RADS density 1-4."""
    films: tuple[Film, ...]

    @property
    def number(self) -> int:
        """Position in the plan, from 1."""
        return int(self.patient_id.removeprefix("P_"))


def plan(config: PhantomConfig, seed: int) -> tuple[Patient, ...]:
    """Decide the patients of the release and what each film shows; cheap, no pixels.

    Returns:
        `config.patients` patients, from P_00001. The first N of a larger plan equal a plan of N.

    Source: counts in the training CSVs of CBIS-DDSM (marginals.py).
    """
    return tuple(_patient(index, config, seed) for index in range(config.patients))


def _patient(index: int, config: PhantomConfig, seed: int) -> Patient:
    patient_id = f"P_{index + 1:05d}"
    rng = generator(seed, patient_id, "plan")
    kind = pick(marginals.KINDS, rng.random())
    parts = _parts(config, kind, rng)
    density = pick(marginals.DENSITIES[kind], rng.random())
    views = pick(marginals.VIEWS, rng.random())
    place = spread(
        seed, "pathology", index
    )  # of the first breast; evenly spread, so that few patients already include both pathologies
    films: list[Film] = []
    for side in dict.fromkeys(side for side, _ in views):
        breast = generator(seed, patient_id, side, "plan")
        two_series = len({*parts.values()}) > 1 or bool(breast.random() < config.two_series)
        lesions = _breast(kind, place, two_series, breast)
        for view in [view for film_side, view in views if film_side == side]:
            codec = _codec(spread(seed, "codec", index * 4 + len(films)), config.compressed)
            series = _series(lesions, view, parts)
            film_id = f"{patient_id}_{side}_{view}"
            tagged = bool(breast.random() < _TAGGED)
            films.append(Film(film_id=film_id, side=side, view=view, codec=codec, tagged=tagged, series=series))
        place = breast.random()
    return Patient(patient_id=patient_id, density=density, films=tuple(films))


def _parts(config: PhantomConfig, kind: str, rng: np.random.Generator) -> dict[str, str]:
    """Return the official part of a patient's series by kind, the patient's main kind first."""
    test, both = rng.random(2)
    part = "test" if test < config.official_test else "train"
    main = "train" if part == "test" and both < marginals.BOTH_PARTS else part
    return {kind: main, _other(kind): part}


def _other(kind: str) -> str:
    return CALCIFICATION if kind == MASS else MASS


def _codec(place: float, compressed: float) -> str:
    return CODECS[int(len(CODECS) * place / compressed)] if place < compressed else "raw"


def _breast(kind: str, place: float, two_series: bool, rng: np.random.Generator) -> list[tuple[Lesion, str]]:
    """Return a breast's lesions, each with the views that show it: `both`, CC or MLO."""
    pathology = pick(marginals.PATHOLOGIES[kind], place)
    lesions = [(draw_lesion(1, kind, pathology, rng), "both")]
    for number in range(2, pick(marginals.LESIONS[kind, pathology], rng.random()) + 1):
        same = rng.random() >= marginals.OTHER_PATHOLOGY[kind]
        view = "both" if rng.random() < marginals.BOTH_VIEWS else str(rng.choice(["CC", "MLO"]))
        lesions.append((draw_lesion(number, kind, pathology if same else _opposite(pathology), rng), view))
    if two_series:
        same = rng.random() >= marginals.DIFFERENT_SERIES
        lesions.append((draw_lesion(1, _other(kind), pathology if same else _opposite(pathology), rng), "both"))
    return lesions


def _opposite(pathology: str) -> str:
    return BENIGN if pathology == MALIGNANT else MALIGNANT


def draw_lesion(number: int, kind: str, pathology: str, rng: np.random.Generator) -> Lesion:
    """Draw the properties of one lesion that all its films share, its position included."""
    place, shape, edge, assessment, subtlety, size, depth, across = rng.random(8)
    key = (kind, pathology)
    least, largest = _DIAMETERS[kind]
    return Lesion(
        number=number,
        kind=kind,
        pathology=pathology,
        look=_look(pathology, place),
        shape=pick(marginals.SHAPES[key], _near(place, shape)),
        edge=pick(marginals.EDGES[key], _near(place, edge)),
        assessment=pick(marginals.ASSESSMENTS[key], assessment),
        subtlety=pick(marginals.SUBTLETIES[kind], subtlety),
        diameter=float(least + (largest - least) * size),
        depth=float(0.15 + 0.65 * depth),
        across=float(0.15 + 0.7 * across),
    )


def _look(pathology: str, place: float) -> float:
    """Return the look at `place` [0-1) of a pathology's distribution, in closed form."""
    first, second = _LOOK
    if pathology == MALIGNANT:
        return float((1 - (1 - place) ** (1 / second)) ** (1 / first))
    return float(1 - (1 - place ** (1 / second)) ** (1 / first))


def _near(place: float, change: float) -> float:
    """Return a place near `place`, uniform overall: readers' descriptors follow the look only loosely."""
    moved = abs(place + 0.3 * (change - 0.5))
    return moved if moved < 1 else 2 - moved


def _series(lesions: list[tuple[Lesion, str]], view: str, parts: dict[str, str]) -> tuple[Series, ...]:
    """Group the lesions of one view by kind; the first lesion is in every view, so there is at least one group."""
    shown = [lesion for lesion, where in lesions if where in ("both", view)]
    groups = {kind: tuple(lesion for lesion in shown if lesion.kind == kind) for kind in parts}
    return tuple(Series(kind=kind, part=parts[kind], lesions=group) for kind, group in groups.items() if group)
