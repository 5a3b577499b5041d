"""What a record becomes: a conversation and references to its media, and nothing else.

`Sample` is the only thing that readers make and that rendering takes. It holds no pixels: media are opened when the
sample is prepared, in the worker that packs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from vedere.errors import MediaError
from vedere.text.chat import Conversation


@dataclass(frozen=True, kw_only=True)
class MediaRef:
    """Where a picture or video is: a file, or a member of a tar shard.

    Attributes:
        kind: What the bytes should be.
        path: The file, or the shard that holds the member.
        member: Name inside the shard; empty for plain files.
        offset: First byte of the member in the shard.
        size: Bytes of the member.
        clip: (start, end) in seconds, the part of a video that the record speaks of.
    """

    kind: Literal["image", "video"]
    path: str
    member: str = ""
    offset: int = 0
    size: int = 0
    clip: tuple[float, float] | None = None

    @property
    def place(self) -> str:
        """The name that messages use: ``shard.tar:member`` or the path."""
        return f"{self.path}:{self.member}" if self.member else self.path

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            MediaError: the file is missing, unreadable, or shorter than the shard's index says.
        """
        try:
            with Path(self.path).open("rb") as file:
                if not self.member:
                    return file.read()
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise MediaError(
                f"{self.place} cannot be read ({error.strerror}); check the root of its data set"
            ) from None
        if len(data) != self.size:
            raise MediaError(
                f"{self.place} ends after {len(data)} of {self.size} bytes; the shard changed since it was indexed or is "
                "truncated: write or fetch it again"
            )
        return data


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One conversation about any number of pictures and videos.

    Attributes:
        name: Identifies the sample in messages: ``dataset#id``.
        conversation: Turns; user turns hold one ``<image>`` or ``<video>`` for each of ``media``, in order.
        media: References in the order of the placeholders.
        source: Where the record stands: ``file:line`` or ``shard:key``.
        weight: Factor on the loss of this sample.
        licence: Licence of text and media, if the record or its data set says.
        augment: Training may re-encode the tiles (``data_augment`` of the published meta files).
        max_tiles: Tile limit of the data set; None: the policy's.
        template: Name of the chat template of the data set; empty: the recipe's.
    """

    name: str
    conversation: Conversation
    media: tuple[MediaRef, ...] = ()
    source: str = ""
    weight: float = 1.0
    licence: str = ""
    augment: bool = False
    max_tiles: int | None = None
    template: str = ""


class Records(Protocol):
    """Random access to the samples of one data set; must be picklable where workers are processes."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """The sample at ``index``.

        Raises:
            RecordError: the record cannot become a sample.
        """
        ...
