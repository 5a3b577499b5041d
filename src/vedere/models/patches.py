"""From pixels to tokens: patch embedding, pixel-unshuffle, projector.

Shared by InternViT (InternVL3, arXiv 2504.10479) and by Mono-InternVL's visual tokenizer (2410.08202, eq. 1), which has no
tower: patches plus absolute positions go straight through unshuffle and projector. A class token with its own position is
part of both checkpoint formats; Mono drops it unused.

Axes: N tiles, C tower width, P patches of a tile, h x w its patch grid, D decoder width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import ConfigError
from vedere.models.stem import STRIDE, stem_channels


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """Shape of the visual tokenizer.

    Attributes:
        width: Width C.
        patch: Side of a patch in pixels.
        tile: Side of a tile in pixels.
        downsample: Pixel-unshuffle factor a side.
        unshuffle: Order of the unshuffled grid: ``v2`` row by row; ``v1`` has the grid's axes swapped.
        stem: Parts of a pretrained stem before the patches (`vedere.models.stem`); the papers have none.
        transcript: The text that the stem's reader finds is put into the visual tokens (`vedere.models.transcript`).
        reading_scales: Sizes at which the reader reads a tile, as shares of its own (`vedere.models.readings`).
        names: What the stem can name; the name of a picture is put into its visual tokens (`vedere.models.namer`).
        table_tile: Side of the tile that the position table is made for, where it is another one; 0: that of ``tile``.
        bias: Bias of the patch convolution; CLIP has none.
    """

    width: int
    patch: int = 14
    tile: int = 448
    downsample: int = 2
    unshuffle: Literal["v1", "v2"] = "v2"
    stem: tuple[str, ...] = ()
    transcript: bool = False
    reading_scales: tuple[float, ...] = (1.0,)
    names: tuple[str, ...] = ()
    table_tile: int = 0
    bias: bool = True

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            ConfigError: a size below 1, a tile that is no whole number of unshuffled patches, a transcript or
                names without the part of the stem that tells them, or scales that no reader reads at.
        """
        if min(self.width, self.patch, self.tile, self.downsample) < 1:
            raise ConfigError(
                f"width {self.width}, patch {self.patch}, tile {self.tile}, downsample {self.downsample}: expected sizes >= 1"
            )
        if (
            self.grid < 1 or self.grid % self.downsample
        ):  # pixels beyond the last whole patch are left out, as in the originals
            raise ConfigError(
                f"a tile of {self.tile} px has {self.grid} x {self.grid} patches of {self.patch} px, which cannot be joined "
                f"{self.downsample} x {self.downsample}: choose a multiple of {self.patch * self.downsample} px"
            )
        if self.transcript and "reader" not in self.stem:
            raise ConfigError(
                f"a transcript needs a reader, and the stem is {list(self.stem)}; add reader to it, or leave the transcript out"
            )
        if not self.reading_scales or not all(0.25 <= scale <= 4 for scale in self.reading_scales):
            raise ConfigError(
                f"reading_scales {list(self.reading_scales)}: expected at least one share of the tile's size from 0.25 to 4"
            )
        if self.names and "lite0" not in self.stem:
            raise ConfigError(
                f"names are told by lite0, and the stem is {list(self.stem)}; add lite0 to it, or leave the names out"
            )
        if self.table_tile < 0 or 0 < self.table_tile < self.patch:
            raise ConfigError(f"a position table for tiles of {self.table_tile} px has no patch of {self.patch} px")
        if self.stem and (self.patch != STRIDE or self.tile % (2 * STRIDE)):
            raise ConfigError(
                f"a stem has features every {STRIDE} px of tiles of whole {2 * STRIDE} px: patch {self.patch}, tile "
                f"{self.tile}; expected patch {STRIDE} and a tile that {2 * STRIDE} divides, or no stem"
            )

    def with_bias(self, whose: str) -> None:
        """Refuses patches without a bias, which only CLIP has.

        Args:
            whose: Model whose patches these are.

        Raises:
            ConfigError: no bias.
        """
        if not self.bias:
            raise ConfigError(f"the patches of {whose} have a bias, the config says bias=False; set it to true")

    @property
    def grid(self) -> int:
        """Patches a side of a tile."""
        return self.tile // self.patch

    @property
    def table_grid(self) -> int:
        """Patches a side that the position table has rows for."""
        return (self.table_tile or self.tile) // self.patch

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of a tile after unshuffling."""
        return self.tokens_of(self.tile, self.tile)

    def tokens_of(self, height: int, width: int) -> int:
        """Visual tokens of a tile of another size, in pixels."""
        side = self.patch * self.downsample
        return (height // side) * (width // side)


class PatchEmbedding(nn.Module):
    """Convolution with stride = kernel, class token, absolute positions.

    Args:
        config: Shape.
    """

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=config.bias)
        self.cls = nn.Parameter(torch.empty(config.width))
        self.positions = nn.Parameter(torch.empty(config.table_grid**2 + 1, config.width))
        nn.init.normal_(self.cls, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        if config.stem:
            channels = stem_channels(config.stem)
            self.stem_norms = nn.ModuleList(nn.LayerNorm(size) for size in channels)
            self.stem_map = nn.Linear(sum(channels), config.width)

    def position_rows(self, height: int, width: int) -> Tensor:
        """Patch rows of the position table for a grid of ``height x width`` patches, ``[P, C]``.

        Interpolated bicubically in float32 where the grid differs from the trained one (identity otherwise).
        """
        side = self.config.table_grid
        rows = self.positions[1:]
        if (height, width) == (side, side):
            return rows
        table = rows.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=(height, width), mode="bicubic", align_corners=False)
        return table.to(rows.dtype).reshape(-1, height * width).t()

    def patches(self, pixels: Tensor) -> Tensor:
        """Embedded patches without positions.

        Written as a matmul over cut patches: equal to the convolution, and its backward is a matmul too.

        Args:
            pixels: ``[N, 3, H, W]``.

        Returns:
            ``[N, h, w, C]``.
        """
        tiles, channels, height, width = pixels.shape
        side = self.config.patch
        h, w = height // side, width // side
        cut = pixels[:, :, : h * side, : w * side].reshape(tiles, channels, h, side, w, side)
        cut = cut.permute(0, 2, 4, 1, 3, 5).reshape(tiles * h * w, channels * side * side)
        return F.linear(cut, self.patch.weight.flatten(1), self.patch.bias).view(tiles, h, w, -1)

    def forward(self, pixels: Tensor, with_class: bool, features: Tensor | None = None) -> Tensor:
        """Patches plus positions.

        Args:
            pixels: ``[N, 3, H, W]``.
            with_class: Put the class token first (``[N, 1 + P, C]``) or leave it out (``[N, P, C]``).
            features: What the stem sees in the same places, ``[N, h, w, stem channels]``, where the config names a stem.
        """
        patches = self.patches(pixels)
        if features is not None:
            parts = features.split(stem_channels(self.config.stem), dim=-1)
            normed = [norm(part) for norm, part in zip(self.stem_norms, parts, strict=True)]
            patches = patches + self.stem_map(torch.cat(normed, dim=-1))
        tiles, h, w, _ = patches.shape
        x = patches.flatten(1, 2) + self.position_rows(h, w)
        if with_class:
            first = (self.cls + self.positions[0]).expand(tiles, 1, -1)
            x = torch.cat([first, x], dim=1)
        return x


def pixel_unshuffle(x: Tensor, factor: int, order: Literal["v1", "v2"]) -> Tensor:
    """Folds ``factor x factor`` neighbouring tokens into channels.

    Output cell (r, c) is the concatenation of the input cells (f r, f c), (f r, f c + 1), ..., row by row. ``v2`` reads the
    cells row by row; ``v1`` leaves the two grid axes swapped, as the first releases do.

    Args:
        x: ``[N, h, w, C]``.
        factor: f.
        order: Reading order.

    Returns:
        ``[N, h * w / f^2, C * f^2]``.
    """
    tiles, h, w, width = x.shape
    x = x.reshape(tiles, h // factor, factor, w // factor, factor, width)
    axes = (0, 1, 3, 2, 4, 5) if order == "v2" else (0, 3, 1, 2, 4, 5)
    return x.permute(*axes).reshape(tiles, (h // factor) * (w // factor), factor * factor * width)


class Projector(nn.Module):
    """LayerNorm, Linear, exact GELU, Linear (``mlp1``): unshuffled patches to decoder width.

    Args:
        width: Unshuffled width 4C.
        hidden: Decoder width D.
        norm: Whether there is the LayerNorm; XComposer2 has none.
    """

    def __init__(self, width: int, hidden: int, norm: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()  # eps 1e-5: the torch default, unlike the tower's
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[..., 4C]`` to ``[..., D]``."""
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out
