"""A small convolutional reader of printed characters, a part of the stem (a help beyond the paper).

Captions alone teach reading slowly: the loss of a word says little about the shape of a letter. Rendered text knows more: which
character stands under each place. The reader learns just that (`vedere.train.reading`), for every cell of 8 px: which character
covers it, and whether the character's middle column lies in it (so that doubled letters stay two). In the stem its
probabilities, the same for every typeface, join the embedded patches.

No normalisation layers: residual branches begin at zero, so a cell's answer depends on its surroundings alone, in training as
in use. Each block holds two 3 x 3 convolutions; at stride 8 a cell sees about 150 px around it.

Cost: 0.8 M parameters, 0.9 GFLOP for a picture of 160 px.

Axes: N pictures, S side, C channels, K classes; h x w cells of 8 px.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELL = 8
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'&-:$%/"
NOTHING = 0
CLASSES = 1 + len(CHARACTERS)


class _Block(nn.Module):
    """``x + conv(relu(conv(relu x)))``, the second convolution zero at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.relu(self.first(F.relu(x))))
        return out


class Reader(nn.Module):
    """Characters under cells of 8 px."""

    channels = 4 * (CLASSES + 1)  # at stride 16, where the stem's parts meet

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            _Block(64),
            nn.ReLU(),
            nn.Conv2d(64, 96, 3, stride=2, padding=1),
            _Block(96),
            _Block(96),
            _Block(96),
            _Block(96),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(96, CLASSES + 1, 1)

    def logits(self, pixels: Tensor) -> Tensor:
        """Class logits and, last, the logit of a middle column.

        Args:
            pixels: ImageNet-normalised, ``[N, 3, S, S]``.

        Returns:
            ``[N, K + 1, S / 8, S / 8]``; class 0 is nothing, class i is ``CHARACTERS[i - 1]``.
        """
        out: Tensor = self.head(self.body(pixels.contiguous(memory_format=torch.channels_last)))
        return out

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities at stride 16: ``[N, 3, S, S]`` to ``[N, 4 (K + 1), S / 16, S / 16]``."""
        return F.pixel_unshuffle(self.chances(self.logits(pixels)), CELL // 4).to(pixels.dtype)

    @staticmethod
    def chances(logits: Tensor) -> Tensor:
        """Probabilities of the classes and of a middle column, float32 ``[N, K + 1, h, w]``, from `logits`."""
        logits = logits.float()
        return torch.cat([logits[:, :CLASSES].softmax(1), logits[:, CLASSES:].sigmoid()], dim=1)
