"""Pictures and films of the corpus as bytes: JPEG in full colour resolution, H.264 in MP4.

Both are functions of the pixels alone (one encoding thread, no dates, reproducible routines of x264), so that a corpus is the
same whenever it is built with the same libraries.

Cost: 1 ms a picture of 160 px; about 15 ms a film of twelve such frames.
"""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from vedere.data.build.record import Clip, Item
from vedere.errors import RecordError

JPEG_QUALITY = 92
SMALLEST, LARGEST = 48, 640
"""Sides of pictures that a kind may yield; the model's own preprocessing brings them to its tile."""


def encode(image: Image.Image) -> bytes:
    """Return the JPEG bytes of a picture: full colour resolution, quality 92."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def encode_clip(clip: Clip) -> bytes:
    """Return the bytes of an MP4 file with one H.264 stream."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # By default some of x264's fast routines give results that depend on where its buffers lie.
        exact = {"threads": "1", "flags": "+bitexact", "x264-params": "cpu-independent=1"}
        options = {"crf": "18", "preset": "veryfast", **exact}
        stream: Any = container.add_stream("libx264", rate=clip.fps, options=options)
        stream.width, stream.height = clip.frames[0].size
        stream.pix_fmt = "yuv420p"
        frame: Any = av.VideoFrame
        for image in clip.frames:
            container.mux(stream.encode(frame.from_image(image)))
        container.mux(stream.encode())
    return buffer.getvalue()


def encode_item(item: Item, where: str) -> tuple[bytes, ...]:
    """Return the files of an item: one for each picture, or the film.

    Args:
        item: what a kind yielded.
        where: names the item in messages.

    Raises:
        RecordError: a picture that is not RGB or has a side outside 48..640 px; frames of different or odd sizes.
    """
    for image in item.pictures:
        if image.mode != "RGB" or not all(SMALLEST <= side <= LARGEST for side in image.size):
            raise RecordError(
                f"{where} is {image.mode} {image.size}; a kind must yield RGB, {SMALLEST} to {LARGEST} px a side"
            )
    if item.clip is None:
        return tuple(encode(image) for image in item.pictures)
    sizes = {frame.size for frame in item.clip.frames}
    if len(sizes) > 1 or any(side % 2 for size in sizes for side in size):
        raise RecordError(f"{where} has frames of {sorted(sizes)}; a film needs frames of one size with even sides")
    return (encode_clip(item.clip),)
