"""What intervals cost: bootstraps by woman, and DeLong's formula, against doing each by its definition.

    python tests/bench/bench_metrics.py        # about a minute

10,000 films of 2,500 women, scores with and without ties. Medians of 5. Prints one JSON line a figure.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from bench_classifiers import show
from sklearn.metrics import roc_auc_score

from mammoflow.metrics import resampling, roc
from mammoflow.metrics.resampling import DRAWS, Resampling

WOMEN, FILMS, ROUNDS, FEW = 2500, 4, 5, 20


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes, median of some [s]."""
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    """Time, compare, print."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.random(WOMEN) < 0.2, FILMS).astype(int)
    women = [f"P_{number // FILMS}" for number in range(WOMEN * FILMS)]
    scores = labels + rng.normal(0, 1, len(labels)) + np.repeat(rng.normal(0, 1, WOMEN), FILMS)
    worst = max(
        (seconds(lambda values=values: resampling.interval(Resampling(labels, women).aucs(values))), name)
        for name, values in (("all different", scores), ("ties", np.round(scores, 1)))
    )
    show("bootstrap_s", worst[0], "s", "< 5", f"{DRAWS} draws of {len(labels)} films", scores=worst[1])
    few = Resampling(labels, women, draws=FEW)
    slow = seconds(lambda: few.values(lambda weights: roc_auc_score(labels, scores, sample_weight=weights)))
    fast = seconds(lambda: few.aucs(scores))
    show("bootstrap_vs_sklearn", slow / fast, "times as fast", "-", "roc_auc_score with weights, draw by draw")

    def by_definition() -> float:
        malignant, benign = scores[labels == 1], scores[labels == 0]
        won = (malignant[:, None] > benign) + 0.5 * (malignant[:, None] == benign)
        return won.mean(axis=1).var(ddof=1) / len(malignant) + won.mean(axis=0).var(ddof=1) / len(benign)

    apart = abs(by_definition() - roc.auc_variance(labels, scores))
    ratio = seconds(by_definition) / seconds(lambda: roc.auc_variance(labels, scores))
    show("delong_vs_pairs", ratio, "times as fast", "-", "every pair compared", difference=apart)


if __name__ == "__main__":
    main()
