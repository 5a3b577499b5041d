"""Sound tracks: decoded, resampled, written, and what has none."""

from pathlib import Path

import av
import numpy as np
import pytest

from vedere.errors import ConfigError, MediaError
from vedere.vision.audio import Audio, read_audio, write_audio


def tone(seconds: float, rate: int, pitch: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def film(path: Path, *, sound: float = 1.0, picture: float = 1.0, late: float = 0.0, rate: int = 44100) -> Path:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="stereo") if sound else None
        for _ in range(int(25 * picture)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            samples = np.stack([tone(sound, rate), tone(sound, rate)])
            for start in range(0, samples.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples[:, start : start + 1024]), format="fltp", layout="stereo"
                )
                frame.sample_rate, frame.pts = rate, start + int(late * rate)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def pitch(samples: np.ndarray, rate: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples))))) * rate / len(samples))


def test_a_track_is_mixed_and_resampled(tmp_path) -> None:
    found = read_audio(film(tmp_path / "a.mp4"))
    assert found.rate == 16000
    assert found.samples.dtype == np.float32
    assert found.duration == pytest.approx(1.0, abs=0.1)  # AAC pads
    assert pitch(found.samples[2000:14000], 16000) == pytest.approx(440, abs=2)
    assert np.abs(found.samples[2000:14000]).max() == pytest.approx(0.5, abs=0.05)
    assert read_audio((tmp_path / "a.mp4").read_bytes(), 8000).duration == pytest.approx(found.duration, abs=0.01)


def test_a_late_track_is_preceded_by_silence(tmp_path) -> None:
    found = read_audio(film(tmp_path / "a.mkv", late=0.5))
    loud = np.flatnonzero(np.abs(found.samples) > 0.25)[0] / found.rate
    assert loud == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3"])
def test_written_sound_is_read_back(tmp_path, name) -> None:
    audio = Audio(tone(2.0, 16000), 16000)
    back = read_audio(write_audio(audio, tmp_path / name))
    assert back.duration == pytest.approx(2.0, abs=0.1)
    assert pitch(back.samples[4000:28000], 16000) == pytest.approx(440, abs=1)


def test_what_has_no_sound_is_told(tmp_path) -> None:
    silent = film(tmp_path / "a.mp4", sound=0)
    with pytest.raises(MediaError, match=r"has no sound track; expected one: use a setting without audio"):
        read_audio(silent)
    (tmp_path / "b.mp4").write_bytes(b"no film")
    with pytest.raises(MediaError, match="not a video that can be read"):
        read_audio(tmp_path / "b.mp4")
    with pytest.raises(ConfigError, match="rate 0; expected samples a second"):
        read_audio(silent, 0)
    with pytest.raises(ConfigError, match=r"named 'a\.ogg'; expected \.wav or \.mp3"):
        write_audio(Audio(tone(0.1, 16000), 16000), tmp_path / "a.ogg")
    with pytest.raises(MediaError, match="a sound of 0 samples"):
        write_audio(Audio(tone(0, 16000), 16000), tmp_path / "a.wav")
