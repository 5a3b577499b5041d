"""Opening the container of a video or audio file: which kinds, from where, and FFmpeg's errors as ours.

Only containers of single streams are opened, and only files of the disk: a playlist could name any other file or
address, and a picture is no video.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vedere.errors import MediaError
from vedere.vision.pixels import check_file, describe, image_size, reason

VideoSource = str | Path | bytes

_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,gif,ogg,h264,hevc,m4v,ivf,obu,mxf,rm,"
    "yuv4mpegpipe,mp3,aac,flac,wav"
)


@contextlib.contextmanager
def open_container(source: VideoSource) -> Iterator[Any]:
    """Opens a container, and turns FFmpeg's errors into ours."""
    import av

    name = describe(source)
    if isinstance(source, (str, Path)):
        target: Any = str(check_file(source).absolute())  # absolute: a name like "concat:x" is no protocol then
    elif isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise MediaError("0 bytes given as a video; expected the content of a video file")
        target = io.BytesIO(source)
    else:
        raise MediaError(f"{name} given as a video; expected a path or the bytes of a video file")
    options = {"format_whitelist": _CONTAINERS}
    if not isinstance(target, io.BytesIO):
        options["protocol_whitelist"] = "file"
    try:
        container = av.open(target, options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        try:
            image_size(source)
        except MediaError:
            raise MediaError(
                f"{name} is not a video that can be read ({reason(error)}); expected a whole, undamaged file such as "
                "MP4, MKV, WebM, AVI or GIF: fetch or write it again"
            ) from None
        raise MediaError(f"{name} is a picture; expected a video: give it as an image") from None
    try:
        with container:
            yield container
    except damage() as error:
        raise MediaError(
            f"{name} cannot be decoded ({reason(error)}); the file is truncated or damaged: fetch or write it again"
        ) from error


def damage() -> tuple[type[Exception], ...]:
    """What PyAV raises at damaged data; IndexError at a packet of a stream that the header did not name."""
    import av

    return av.error.FFmpegError, IndexError, MemoryError, ValueError, OverflowError
