"""What a picture shows as a whole, told by the stem and put into the visual tokens as a name (a help beyond the paper).

The stem's features tell a thousand things apart, in styles that they never saw, long before a small frozen language model has
learnt to read them: a linear map of their mean and maximum over the picture, fitted in minutes (`vedere.train.naming`), names
four of five drawings of an unseen artist. Captions alone would need many passes over all names for that. So, as the reader's
text does (`vedere.models.transcript`), the name stands in the visual tokens, in the pieces of the language model's vocabulary:

    p = softmax(W [mean_hw f; max_hw f] + b),   f the features of ``lite0``, class 0 "nothing of these"

The likeliest name is told where "nothing" has a chance below `NOTHING`, however unsure the name is among a thousand others, and
stands around what the reader found. What to do with it, and whether to believe it, is the language model's to learn.

Cost: 1.2 k multiplications a name; below 1 ms a picture.

Axes: N tiles, h x w cells at stride 16, C channels of ``lite0``, K names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vedere.errors import CheckpointError
from vedere.models.layers import ReadLinear
from vedere.models.shards import read_file

NAMER = Path(__file__).parents[1] / "weights" / "namer.safetensors"
NAMES = "names"  # key of the file's metadata
NOTHING = 0.4
"""From this chance of "nothing" on, no name is told: 3 % of scenes, text and charts get one, 70 % of unseen drawings theirs."""


class Namer(nn.Module):
    """A linear map from pooled features to nothing or one of K names.

    Args:
        names: K.
        channels: C.
    """

    def __init__(self, names: int, channels: int) -> None:
        super().__init__()
        self.map = ReadLinear(2 * channels, 1 + names)

    @staticmethod
    def pooled(features: Tensor) -> Tensor:
        """Mean and maximum over the cells: ``[N, h, w, C]`` to ``[N, 2C]``, in float32."""
        cells = features.float().flatten(1, 2)
        return torch.cat([cells.mean(1), cells.amax(1)], dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[N, 1 + K]`` in float32 of features ``[N, h, w, C]``; class 0 is nothing, class i the i-th name."""
        pooled = self.pooled(features)
        weight, bias = self.map.weight.float(), self.map.bias.float()
        return torch.nn.functional.linear(pooled, weight, bias)

    @torch.no_grad()
    def tell(self, features: Tensor, names: Sequence[str]) -> list[str]:
        """The name of each tile, empty where there is none."""
        return self.names_of(self(features), names)

    @staticmethod
    def names_of(logits: Tensor, names: Sequence[str]) -> list[str]:
        """What logits ``[N, 1 + K]`` say: a name each, or an empty text."""
        silent = logits.softmax(-1)[:, 0] >= NOTHING
        likeliest = logits[:, 1:].argmax(-1)
        return ["" if no else names[index] for no, index in zip(silent.tolist(), likeliest.tolist(), strict=True)]


def read_namer(path: Path = NAMER) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Names and weights of a file that `vedere.train.naming` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or holds no names.
    """
    tensors, metadata = read_file(path)
    try:
        names = tuple(map(str, json.loads(metadata[NAMES])))
    except (KeyError, ValueError, TypeError):
        names = ()
    weight = tensors.get("map.weight")
    if not names or weight is None or len(weight) != 1 + len(names):
        rows = "none" if weight is None else len(weight)
        raise CheckpointError(
            f"{path} holds {len(names)} names and {rows} rows of weights; expected one row more than names, as "
            "tools/train_namer.py writes it"
        )
    return names, tensors
