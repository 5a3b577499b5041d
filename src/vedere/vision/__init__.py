"""Pictures and videos to pixels: files in, 8-bit RGB, tiles and normalised tower inputs out.

`vedere.plan` decides how many tiles there are and where; this room only follows a plan. It knows nothing of text or
models. PyAV and torch are imported by the functions that need them.
"""

from vedere.vision.container import VideoSource
from vedere.vision.frames import FrameRule, frame_indices
from vedere.vision.hd import global_view, hd_canvas, hd_tiles, tower_inputs
from vedere.vision.pixels import (
    MAX_PIXELS,
    ImageSource,
    Statistics,
    image_size,
    media_tiles,
    normalise,
    open_image,
)
from vedere.vision.video import Video, VideoInfo, probe, read_frames

__all__ = [
    "MAX_PIXELS",
    "FrameRule",
    "ImageSource",
    "Statistics",
    "Video",
    "VideoInfo",
    "VideoSource",
    "frame_indices",
    "global_view",
    "hd_canvas",
    "hd_tiles",
    "image_size",
    "media_tiles",
    "normalise",
    "open_image",
    "probe",
    "read_frames",
    "tower_inputs",
]
