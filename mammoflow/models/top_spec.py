"""The language of top layers: what every kind of top layers answers for, and how a spec stands in names. No torch.

    spec     := blocks | "heatmap," blocks | fc | instances
    blocks   := block "," block ...        two blocks in the paper
    block    := NxK                        VGG: K times [3x3 conv N, BN, ReLU], then 2x2 max pooling
              | [L-M-N]xK                  ResNet: K bottleneck units 1x1 L, 3x3 M, 1x1 N; the first has stride 2
    fc       := fc-poolP-N-N               heatmap, PxP max pooling, FC layers of N with a shortcut past them
    instances:= max | sparse | attention-N the heatmap's cells as instances of a bag

Blocks stand on the trunk's feature map, or on the heatmap: the patch classifier's own output, cell by cell. Each kind
is one class of top_kinds.py, which reads and builds it.

Source: Shen et al. 2019, methods; tables 2 and 3. Instances: Zhu et al. 2017 (arXiv:1705.08550), Ilse et al. 2018
(arXiv:1802.04712).
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

if TYPE_CHECKING:
    from torch import Tensor, nn

Size = tuple[int, int]
"""Rows and columns of a map."""


class Head(Protocol):
    """The module that a spec builds: from a map to two logits."""

    def judge(self, features: "Tensor") -> "tuple[Tensor, Tensor]":
        """Map features (N, C, h, w) to logits (N, 2) and to what each image adds to its loss (N,)."""

    def prepare_dropout(self, share: float, keys: Sequence[str]) -> None:
        """Choose what the next batch's dropout drops (`Dropout.prepare`)."""

    def parameters(self) -> "Iterator[nn.Parameter]":
        """Yield its weights, as `nn.Module` does."""


class BlockSpec(Protocol):
    """A convolutional block."""

    @property
    def repeats(self) -> int:
        """Return how often its layers repeat."""

    @property
    def widest(self) -> int:
        """Return the most channels of its layers."""


class TopSpec(Protocol):
    """Top layers of one kind, as read from text. `str()` returns that text, without spaces."""

    GRAMMAR: ClassVar[str]
    """How the kind is written, with an example, for error messages."""
    ROUTES: ClassVar[dict[str, str]]
    """Family -> which of the paper's routes from a patch classifier to a whole-image one it takes; only the paper's own
    families. A family without a route joins greedy ensembles; `best_of_kinds` takes it only where no all-convolutional
    candidate was scored, and the report's best single models leave it out."""
    rectified: ClassVar[bool]
    """Whether a heatmap passes a ReLU first; without effect on the trunk's feature map."""

    def __hash__(self) -> int:
        """Return the same for equal specs, as frozen dataclasses do."""

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return what a text asks for, or None where it is of another kind.

        Raises:
            SpecError: it is of this kind, but a number is out of range.
        """

    @property
    def heatmap(self) -> bool:
        """Return whether it stands on the heatmap instead of the trunk's feature map."""

    @property
    def family(self) -> str:
        """Return the family that the ranking and the ensemble group it by, such as `VGG`; without a dash."""

    @property
    def blocks(self) -> Sequence[BlockSpec]:
        """Return its convolutional blocks; empty where it has none."""

    def sizes(self, size: Size) -> list[Size]:
        """Return the maps that follow from the one it stands on."""

    def build(self, size: Size, channels: int) -> Head:
        """Return the module, an `nn.Module`, with random weights from torch's global generator.

        Args:
            size: of the last map of `sizes`, or of the map it stands on.
            channels: of the map it stands on.
        """


def slug(spec: object) -> str:
    """Return a spec as names have it, without brackets and commas: `512-512-1024x2-512-512-1024x2`."""
    return str(spec).replace("[", "").replace("]", "").replace(" ", "").replace(",", "-")
