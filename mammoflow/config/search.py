"""Settings of the search over top layers: who is tried, who goes on, when it ends."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from mammoflow.config.fields import require


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceConfig:
    """What free candidates are drawn from: each setting is one of a list, or from a range."""

    kinds: tuple[Literal["vgg", "resnet"], ...] = ("vgg", "resnet")
    """Kind of all blocks of a candidate."""
    blocks: tuple[int, ...] = (1, 2)
    """Blocks of a candidate; each halves the map."""
    channels: tuple[int, ...] = (64, 128, 256, 512)
    """N of a VGG block; L and M of a ResNet block; each block has its own."""
    widening: tuple[int, ...] = (1, 2, 4)
    """A ResNet block's N, as a multiple of L and M."""
    repeats: tuple[int, ...] = (1, 2, 3)
    """K of a block; all blocks have the same."""
    heatmap: tuple[bool, ...] = (False, True)
    """Whether blocks stand on the heatmap."""
    dropout: tuple[float, ...] = (0.0, 0.5)
    """Share of the features before the last FC that is dropped [0-1)."""
    lr: tuple[float, float] = (0.3, 3.0)
    """Factor on both stages' learning rates, from a to b, log-uniform; equal ones fix it."""
    decay: tuple[float, float] = (0.1, 10.0)
    """Factor on both stages' weight decays, from a to b, log-uniform; equal ones fix it."""

    def __post_init__(self) -> None:
        """Refuse an empty list, and values that no candidate can have."""
        for name in ("kinds", "blocks", "channels", "widening", "repeats", "heatmap", "dropout"):
            require(len(getattr(self, name)) > 0, f"space.{name}", (), "one value or more", "see its default")
        for name in ("blocks", "channels", "widening", "repeats"):
            least = min(getattr(self, name))
            require(least >= 1, f"space.{name}", least, "at least 1", "see its default")
        for name in ("lr", "decay"):
            low, high = getattr(self, name)
            require(0 < low <= high, f"space.{name}", (low, high), "two factors above 0, ascending", "such as 0.3 3")
        for share in self.dropout:
            require(0 <= share < 1, "space.dropout", share, "0 to below 1", "0 turns it off")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """The search over top layers. Candidates stand in each trunk's `top_layers`, others are drawn from a free space."""

    survivors: Literal["best_of_each_kind", "all"] = "best_of_each_kind"
    """Who goes on from stage 1 to stage 2: per kind (Resnet-VGG, ...) the best by validation AUC, or everyone."""
    rungs: tuple[int, ...] = ()
    """Epochs, counted over both stages, after which candidates are ranked and the lower part is dropped."""
    keep: float = 0.5
    """Share of the candidates that goes on from each rung [0-1]; the best of each kind does, where those are wanted."""
    halving: Literal["synchronous", "asynchronous"] = "synchronous"
    """At a rung, wait for all candidates and rank them once; or rank each pack at once among all that have come so far
    (ASHA, Li et al. 2020, arXiv:1810.05934): nobody waits, but who is dropped depends on who is fast. Stage 2 waits for
    all of stage 1 either way."""
    drawn: int = 0
    """Free candidates on each trunk, drawn from `space`."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How they are drawn: by a tree-structured Parzen estimator of what was good so far (Optuna), or at random."""
    at_a_time: int = 8
    """Candidates drawn at a time; the next ones follow once these reach the first rung or, without one, the end of
    stage 1."""
    space: SpaceConfig = SpaceConfig()
    """What they are drawn from."""
    max_trials: Annotated[int | None, arg(aliases=["--max-trials"])] = None
    """Most candidates in all; those drawn last, and then those named last, are left out."""
    max_hours: Annotated[float | None, arg(aliases=["--max-hours"])] = None
    """Hours of running [h], over all starts of the command, after which the search ends with what it has."""

    def __post_init__(self) -> None:
        """Refuse rungs that are none, and searches without end or candidates."""
        ascending = self.rungs == tuple(sorted({*self.rungs})) and all(rung >= 1 for rung in self.rungs)
        require(ascending, "search.rungs", self.rungs, "epochs from 1, ascending", "such as 3 9")
        require(0 < self.keep <= 1, "search.keep", self.keep, "above 0, at most 1", "0.5 drops half")
        require(self.drawn >= 0, "search.drawn", self.drawn, "0 or more", "0 draws none")
        require(self.at_a_time >= 1, "search.at_a_time", self.at_a_time, "at least 1", "8 suits most")
        trials, hours = self.max_trials, self.max_hours
        require(trials is None or trials >= 1, "search.max_trials", trials, "at least 1", "or leave it out")
        require(hours is None or hours > 0, "search.max_hours", hours, "above 0", "or leave it out")
