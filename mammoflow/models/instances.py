"""A heatmap's cells as instances of a bag, to compare with the multi-instance works that the paper names.

Plain PyTorch; no Ray, no files.

Shape letters: N images, P classes of patches, u v rows and columns of a heatmap, I = u v instances, L units.
Source: Zhu et al. 2017 (arXiv:1705.08550), 2.2 and 2.4 (max pooling; sparse label assignment); Ilse et al. 2018
(arXiv:1802.04712), 2.4 (gated attention).
"""

import torch
from torch import Tensor, nn

from mammoflow.models.top_spec import Instances

SPARSITY = 1e-5
"""mu, factor on the sum of an image's instance probabilities: few cells of a film are malignant. (ours)"""


class InstancePooling(nn.Module):
    """Scores each cell of a heatmap and pools: the highest score, or the mean by learnt attention."""

    def __init__(self, spec: Instances, in_channels: int) -> None:
        """Build the layers with random weights."""
        super().__init__()
        self.how = spec.how
        self.score = nn.Linear(in_channels, 1)
        if spec.how == "attention":
            self.content = nn.Linear(in_channels, spec.width)
            self.gate = nn.Linear(in_channels, spec.width)
            self.weigh = nn.Linear(spec.width, 1)

    def judge(self, heatmap: Tensor) -> tuple[Tensor, Tensor]:
        """Map a heatmap (N, P, u, v) to logits (N, 2), benign fixed at 0, and the sparsity's part of the loss (N,)."""
        cells_NIP = heatmap.flatten(2).transpose(1, 2)
        score_NI = self.score(cells_NIP)[..., 0]
        if self.how == "attention":
            gated = torch.tanh(self.content(cells_NIP)) * torch.sigmoid(self.gate(cells_NIP))
            pooled_N = (self.weigh(gated)[..., 0].softmax(dim=1) * score_NI).sum(dim=1)
        else:
            pooled_N = score_NI.amax(dim=1)
        logits = torch.stack([torch.zeros_like(pooled_N), pooled_N], dim=1)
        if self.how == "sparse":
            return logits, SPARSITY * score_NI.float().sigmoid().sum(dim=1)
        return logits, logits.new_zeros(len(logits))
