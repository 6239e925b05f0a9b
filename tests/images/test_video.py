"""Videos keep frames, timestamps, colors, sound and subtitles, and an interrupted run resumes."""

import signal
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from upscaled_files import run_python, upscale_file

from srgan_hub import SRGAN
from srgan_hub.images import video
from srgan_hub.images.errors import ImageError
from srgan_hub.upscaler import Upscaler


class Nearest(Upscaler):
    """Repeats pixels instead of computing, which leaves the errors of the codec alone."""

    def upscale(self, image, *, size=None, progress=None):
        return image.repeat(4, 0).repeat(4, 1)


@pytest.fixture
def nearest(tiny_generator) -> Nearest:
    return Nearest(tiny_generator(), scale=4, device="cpu", dtype="fp32")


def make_frames(count: int, size=(24, 32)) -> list[np.ndarray]:
    """Smooth colors, which codecs hold, and a square that moves."""
    y, x = np.mgrid[: size[0], : size[1]]
    frames = []
    for i in range(count):
        frame = np.dstack([x * 255 // size[1], y * 255 // size[0], np.full(size, 40 + 20 * (i % 8))]).astype(np.uint8)
        frame[8:16, 4 + i % 8 : 12 + i % 8] = (230, 40, 40)
        frames.append(frame)
    return frames


def write_video(
    path: Path, frames: list[np.ndarray], *, times=None, sound=False, subtitles=False, rotation=0, **context
) -> None:
    """Write a clip of 25 frames a second, or with the given times in milliseconds."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = context.pop("pix_fmt", "yuv444p")
        base = Fraction(1, 1000)
        stream.time_base = stream.codec_context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if sound:
            audio = file.add_stream("aac", rate=48_000, layout="mono")
            audio.metadata["language"] = "deu"
        if subtitles:
            texts = file.add_mux_stream("subrip")
        for i, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24" if array.dtype == np.uint8 else "rgb48le")
            frame = frame.reformat(
                format=stream.pix_fmt,
                dst_colorspace=context.get("colorspace"),
                dst_color_range=context.get("color_range"),
            )
            frame.pts, frame.time_base = (times[i] if times else 40 * i), base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if sound:
            wave = np.sin(np.arange(1024 * 20) / 20).astype(np.float32)
            for i in range(20):
                part = av.AudioFrame.from_ndarray(wave[None, 1024 * i : 1024 * (i + 1)], format="fltp", layout="mono")
                part.sample_rate, part.pts, part.time_base = 48_000, 1024 * i, Fraction(1, 48_000)
                file.mux(audio.encode(part))
            file.mux(audio.encode())
        if subtitles:
            packet = av.Packet(b"a cat")
            packet.stream, packet.time_base = texts, base
            packet.pts = packet.dts = 100
            packet.duration = 500
            file.mux(packet)


def decode_frames(path: Path, kind: str = "rgb24") -> tuple[list[np.ndarray], list[Fraction]]:
    with av.open(str(path)) as file:
        decoded = [(frame.to_ndarray(format=kind), frame.pts * frame.time_base) for frame in file.decode(video=0)]
    frames, times = zip(*decoded, strict=True)
    return list(frames), list(times)


def packets(path: Path, kind: str) -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as file:
        streams = [stream for stream in file.streams if stream.type == kind]
        demuxed = file.demux(*streams) if streams else ()
        return [(bytes(each), each.pts * each.time_base) for each in demuxed if each.size]


def test_frames_equal_upscaled_images(upscaler, tmp_path):
    write_video(tmp_path / "a.mkv", make_frames(5))
    target = upscale_file(upscaler, tmp_path / "a.mkv", crf=1)
    assert target.name == "a_x4.mkv"
    frames, _ = decode_frames(tmp_path / "a.mkv")
    results, _ = decode_frames(target)
    for frame, result in zip(frames, results, strict=True):
        assert np.abs(result.astype(int) - upscaler.upscale(frame)).mean() < 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_timestamps_sound_and_subtitles(nearest, tmp_path, suffix, monkeypatch, caplog):
    """The frame rate varies, also between segments."""
    monkeypatch.setattr(video, "SEGMENT", 4)
    times = [0, 40, 50, 200, 210, 220, 900, 1000, 1001, 1040, 2000, 2500, 2501]
    write_video(tmp_path / "a.mkv", make_frames(13), times=times, sound=True, subtitles=True)
    upscale_file(nearest, tmp_path / "a.mkv", tmp_path / f"b{suffix}")
    frames, seen = decode_frames(tmp_path / f"b{suffix}")
    assert [round(1000 * (time - seen[0])) for time in seen] == times and len(frames) == 13
    before, after = packets(tmp_path / "a.mkv", "audio"), packets(tmp_path / f"b{suffix}", "audio")
    assert len(before) > 10 and [data for data, _ in before] == [data for data, _ in after]
    assert all(abs(a - b) < Fraction(2, 1000) for (_, a), (_, b) in zip(before, after, strict=True))
    with av.open(str(tmp_path / f"b{suffix}")) as file:
        assert file.streams.audio[0].metadata["language"] == "deu"
    kept = [data for data, _ in packets(tmp_path / f"b{suffix}", "subtitle")]
    assert kept == ([b"a cat"] if suffix == ".mkv" else [])
    assert ("mp4 cannot store: subtitle (srt)" in caplog.text) == (suffix == ".mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", f"b{suffix}"]


@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("colorspace", [1, 5, 6])
def test_colors(nearest, tmp_path, colorspace, color_range):
    context = {"colorspace": colorspace, "color_range": color_range, "color_primaries": 1, "color_trc": 1}
    write_video(tmp_path / "a.mp4", make_frames(2), **context)
    upscale_file(nearest, tmp_path / "a.mp4", tmp_path / "b.mp4", crf=1)
    (before, *_), (after, *_) = decode_frames(tmp_path / "a.mp4")[0], decode_frames(tmp_path / "b.mp4")[0]
    assert np.abs(before - make_frames(1)[0].astype(int)).max() < 12  # the clip is as intended
    assert np.abs(after[::4, ::4].astype(int) - before).mean() < 1.5
    with av.open(str(tmp_path / "b.mp4")) as file:
        written = file.streams.video[0].codec_context
        assert {name: getattr(written, name) for name in context} == context
        assert written.pix_fmt in ("yuv444p", "yuvj444p")


def test_ten_bits(nearest, tmp_path):
    ramp = np.linspace(0, 65_535, 64).astype(np.uint16)
    frames = [np.dstack([np.tile(ramp, (32, 1))] * 3)] * 2
    write_video(tmp_path / "a.mkv", frames, pix_fmt="yuv420p10le")
    upscale_file(nearest, tmp_path / "a.mkv", tmp_path / "b.mkv", crf=1)
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert file.streams.video[0].codec_context.pix_fmt == "yuv420p10le"
    after = decode_frames(tmp_path / "b.mkv", "rgb48le")[0][0]
    assert np.abs(after[::4, ::4].astype(int) - frames[0]).mean() < 300  # one 8-bit value is 257
    assert len(np.unique(after[0] >> 6)) > 60


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied_and_aspect_kept(nearest, tmp_path, rotation):
    write_video(tmp_path / "a.mp4", make_frames(2), rotation=rotation, sample_aspect_ratio=Fraction(4, 3))
    upscale_file(nearest, tmp_path / "a.mp4", tmp_path / "b.mp4", crf=1)
    with av.open(str(tmp_path / "b.mp4")) as file:
        frame = next(file.decode(video=0))
        assert frame.rotation == 0
        assert file.streams.video[0].sample_aspect_ratio == (Fraction(4, 3) if rotation == 180 else Fraction(3, 4))
    rotated = np.rot90(decode_frames(tmp_path / "a.mp4")[0][0], rotation // 90)
    assert np.abs(frame.to_ndarray(format="rgb24")[::4, ::4].astype(int) - rotated).mean() < 2


def test_odd_sizes_become_even(upscaler, tmp_path):
    write_video(tmp_path / "a.mp4", make_frames(1))
    upscale_file(upscaler, tmp_path / "a.mp4", tmp_path / "b.mp4", size=(47, 33))
    assert decode_frames(tmp_path / "b.mp4")[0][0].shape == (32, 46, 3)


@pytest.mark.parametrize(("codec", "name"), [("libx265", "hevc"), ("libvpx-vp9", "vp9")])
def test_codecs(nearest, tmp_path, codec, name):
    write_video(tmp_path / "a.mp4", make_frames(8))
    upscale_file(nearest, tmp_path / "a.mp4", tmp_path / "b.mkv", codec=codec, crf=20)
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert file.streams.video[0].codec_context.name.removeprefix("lib") in (name, codec.removeprefix("lib"))


def test_errors(nearest, tmp_path):
    write_video(tmp_path / "a.mp4", make_frames(3))
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        audio = file.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        file.mux(audio.encode(frame))
        file.mux(audio.encode())
    for name, options, message in (
        ("text.mp4", {}, "text.mp4' is not an image"),
        ("cut.mp4", {}, "Cannot decode .*cut.mp4"),
        ("sound.mp4", {}, "sound.mp4' contains no video"),
        ("a.mp4", {"max_pixels": 100}, "a.mp4' has 32 x 24 pixels; the limit"),
        ("a.mp4", {"codec": "nothing"}, "the codec 'nothing' is unavailable"),
    ):
        with pytest.raises(ImageError, match=message):
            upscale_file(nearest, tmp_path / name, tmp_path / "b.mp4", **options)
    with pytest.raises(ImageError, match=r"cannot save video as .png; use .mp4, "):
        upscale_file(nearest, tmp_path / "a.mp4", tmp_path / "b.png")
    assert not (tmp_path / "b.mp4").exists()


# Kills itself when a number of frames have been upscaled.
INTERRUPTED = """
import os, signal, sys
from srgan_hub import frames
from srgan_hub.images import video
from srgan_hub.cli import main
video.SEGMENT = 4
upscale, count = frames.Upscaler.upscale, 0
def counted(self, image, **options):
    global count
    count += 1
    if count == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return upscale(self, image, **options)
frames.Upscaler.upscale = counted
sys.exit(main(["upscale", "a.mp4", "--model", "model", "--output", sys.argv[2]]))
"""


def test_resume_after_sigkill_is_bit_identical(tmp_path):
    write_video(tmp_path / "a.mp4", make_frames(15))
    SRGAN(channels=4, num_blocks=1).save_pretrained(tmp_path / "model")
    runs = ((100, "full.mp4"), (7, "b.mp4"), (6, "b.mp4"), (100, "b.mp4"))
    codes = [run_python(INTERRUPTED, number, name, cwd=tmp_path).returncode for number, name in runs]
    assert codes == [0, -signal.SIGKILL, -signal.SIGKILL, 0]
    full, times = decode_frames(tmp_path / "full.mp4")
    resumed, resumed_times = decode_frames(tmp_path / "b.mp4")
    assert len(full) == 15 and times == resumed_times
    assert all(np.array_equal(a, b) for a, b in zip(full, resumed, strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "full.mp4", "model"]
