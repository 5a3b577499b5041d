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
MIDDLE_THRESHOLD = 0.5


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
        logits = self.logits(pixels).float()
        chances = torch.cat([logits[:, :CLASSES].softmax(1), logits[:, CLASSES:].sigmoid()], dim=1)
        return F.pixel_unshuffle(chances, CELL // 4).to(pixels.dtype)


def read_cells(logits: Tensor) -> str:
    """What stands in a picture, by taking the likeliest character at every middle column.

    Args:
        logits: ``[K + 1, h, w]`` of `Reader.logits`.

    Returns:
        The row of cells with most characters, from left to right; for measuring single words.
    """
    middle = logits[CLASSES].float().sigmoid()
    classes = logits[1:CLASSES].argmax(0)
    left, right = F.pad(middle, (1, 0))[:, :-1], F.pad(middle, (0, 1))[:, 1:]
    other_left, other_right = F.pad(classes, (1, 0), value=-1)[:, :-1], F.pad(classes, (0, 1), value=-1)[:, 1:]
    peak = (middle > MIDDLE_THRESHOLD) & ((middle >= left) | (classes != other_left))
    peak &= (middle > right) | (classes != other_right)  # one character may answer in two cells, two never in one
    best, most = "", 0.0
    for row in range(len(middle)):
        columns = peak[row].nonzero().flatten().tolist()
        score = float(middle[row][peak[row]].sum())
        if score > most:
            best, most = "".join(CHARACTERS[int(classes[row, column])] for column in columns), score
    return best
