"""Videos keep frames, timestamps, colors, sound and subtitles, and an interrupted run resumes."""

import io
import itertools
import os
import re
import signal
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image
from upscaled_files import run_python, upscale_file

from srgan_hub import SRGAN
from srgan_hub.images import media, video, video_tags
from srgan_hub.images.encode import SaveOptions
from srgan_hub.images.errors import ImageError
from srgan_hub.upscaler import Upscaler


class Nearest(Upscaler):
    """Repeats pixels instead of computing, which leaves the errors of the codec alone."""

    def upscale(self, image, **options):
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


FORMATS = {".mkv": "matroska", ".ts": "mpegts"}


def write_video(
    path: Path,
    frames: list[np.ndarray],
    *,
    times=None,
    sound=False,
    subtitles=False,
    codec="libx264",
    prepare=lambda file, stream: None,
    **context,
) -> None:
    """Write a clip of 25 frames a second, or with the given times in milliseconds; `prepare` adds what it likes."""
    with av.open(f"file:{path}", "w", format=FORMATS.get(path.suffix, path.suffix[1:])) as file:
        stream = file.add_stream(codec, rate=25, options={"crf": "1"} if codec.startswith("libx264") else {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = context.pop("pix_fmt", "yuv444p")
        base = Fraction(1, 1000)
        stream.time_base = stream.codec_context.time_base = base
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if sound:
            audio = file.add_stream("aac", rate=48_000, layout="mono")
            audio.metadata["language"] = "deu"
        if subtitles:
            texts = file.add_mux_stream("subrip")
        prepare(file, stream)
        for i, array in enumerate(frames):
            kind = {3: ("rgb24", "rgb48le"), 4: ("rgba", "rgba64le")}[array.shape[2]][array.itemsize - 1]
            frame = av.VideoFrame.from_ndarray(array, format=kind)
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
            packet = av.Packet(b"a cat" if subtitles is True else subtitles)
            packet.stream, packet.time_base = texts, base
            packet.pts = packet.dts = 100
            packet.duration = 500
            file.mux(packet)


def decode_frames(path: Path, kind: str = "rgb24") -> tuple[list[np.ndarray], list[Fraction]]:
    with av.open(f"file:{path}") as file:
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


COLORS = [(0, 62, 0), (200, 30, 60), (20, 40, 220), (128, 128, 128)]


def make_bars() -> np.ndarray:
    return np.repeat(np.repeat(np.array([COLORS], np.uint8), 12, 1), 24, 0)


def read_bars(path: Path, ffmpeg: str) -> list[np.ndarray]:
    """Return the colors as the ffmpeg command and as libavfilter reads the file's tags."""
    command = [ffmpeg, "-v", "error", "-i", path, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        graph = av.filter.Graph()
        flags = "flags=accurate_rnd+full_chroma_int"
        chain = [graph.add_buffer(template=stream), graph.add("scale", flags), graph.add("format", "rgb24")]
        graph.link_nodes(*chain, graph.add("buffersink")).configure()
        graph.push(next(file.decode(stream)))
        frame = graph.pull().to_ndarray()
    images = np.frombuffer(raw, np.uint8).reshape(frame.shape), frame
    return [image[48, 24::48].astype(int) for image in images]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tags"),
    [
        ("a.mp4", "libx264rgb", "rgb24", (1, 1)),
        ("a.mkv", "ffv1", "bgr0", (1, 1)),
        ("a.mkv", "ffv1", "gbrp10le", (1, 1)),
        ("a.mov", "png", "rgb24", (1, 1)),
        ("a.mp4", "libx264", "yuv420p", (6, 1)),
        ("a.mp4", "libx264", "yuvj420p", (6, 2)),
        ("a.mov", "prores_ks", "yuv422p10le", (6, 1)),
    ],
)
def test_tags_describe_the_pixels(nearest, tmp_path, ffmpeg, name, codec, pix_fmt, tags):
    """RGB becomes BT.709; a matrix that is not specified becomes the one that players assume."""
    write_video(tmp_path / name, [make_bars()], codec=codec, pix_fmt=pix_fmt)
    target = upscale_file(nearest, tmp_path / name, crf=1, codec="libx264")
    for colors in read_bars(target, ffmpeg):
        assert np.abs(colors - COLORS).max() <= 4
    with av.open(str(target)) as file:
        frame = next(file.decode(video=0))
    assert (frame.colorspace, frame.color_range) == tags and frame.format.name.startswith(
        ("yuv420p", "yuvj420p", "yuv4")
    )


def test_full_range_becomes_limited_where_the_codec_has_no_full_range(nearest, tmp_path, ffmpeg):
    write_video(tmp_path / "a.mp4", [make_bars()], pix_fmt="yuvj420p")
    target = upscale_file(nearest, tmp_path / "a.mp4", tmp_path / "b.mov", codec="prores_ks")
    for colors in read_bars(target, ffmpeg):
        assert np.abs(colors - COLORS).max() <= 4


def make_alpha_frames(count: int) -> list[np.ndarray]:
    alpha = np.tile(np.linspace(0, 255, 32).round().astype(np.uint8), (24, 1))
    return [np.dstack([frame, alpha]) for frame in make_frames(count)]


@pytest.mark.parametrize(
    ("source", "codec", "pix_fmt", "target", "name"),
    [
        ("a.webm", "libvpx-vp9", "yuva420p", "b.webm", "vp9"),
        ("a.mov", "prores_ks", "yuva444p10le", "b.mov", "prores"),
        ("a.mov", "qtrle", "argb", "b.mkv", "ffv1"),
        ("a.mov", "qtrle", "argb", "b.webm", "vp9"),
        ("a.mkv", "ffv1", "bgra", "b.mp4", "h264"),
    ],
)
def test_alpha(nearest, tmp_path, monkeypatch, caplog, source, codec, pix_fmt, target, name):
    monkeypatch.setattr(video, "SEGMENT", 2)
    frames = make_alpha_frames(3)
    write_video(tmp_path / source, frames, codec=codec, pix_fmt=pix_fmt)
    upscale_file(nearest, tmp_path / source, tmp_path / target)
    with video.VideoReader(tmp_path / target, (tmp_path / target).open("rb"), None) as reader:
        results = [frame.with_bits(8).array[::4, ::4].astype(int) for frame in reader.read()]
        stream = reader.container.streams[reader.index]
        assert stream.codec_context.name == name and len(results) == 3
        tags = {key.lower() for key in stream.metadata}
    if target.endswith(".mp4"):
        assert "mp4 cannot store: alpha" in caplog.text
        assert results[0].shape[2] == 3 and "alpha_mode" not in tags
    else:
        assert not caplog.text
        assert max(np.abs(a[:, :, 3] - b[:, :, 3]).max() for a, b in zip(frames, results, strict=True)) <= 3
        assert ("alpha_mode" in tags) == (name == "vp9")


def test_alpha_is_upscaled_as_that_of_images(upscaler, tmp_path):
    frames = make_alpha_frames(2)
    write_video(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="bgra")
    upscale_file(upscaler, tmp_path / "a.mkv")
    results, _ = decode_frames(tmp_path / "a_x4.mkv", "rgba")
    assert all(np.array_equal(upscaler.upscale(a), b) for a, b in zip(frames, results, strict=True))


def test_losses_are_named_before_the_work(nearest, tmp_path, monkeypatch, caplog):
    write_video(tmp_path / "a.mkv", make_alpha_frames(1), codec="ffv1", pix_fmt="bgra", subtitles=True)

    def upscale(image, **options):
        assert "webm cannot store: subtitle (srt)" in caplog.text
        return image.repeat(4, 0).repeat(4, 1)

    monkeypatch.setattr(nearest, "upscale", upscale)
    upscale_file(nearest, tmp_path / "a.mkv", tmp_path / "b.webm")
    for target, codec in (("b.webm", "libx264"), ("b.mov", "libvpx-vp9"), ("b.mp4", "prores_ks")):
        with pytest.raises(ImageError, match=f"{codec} cannot write a .* file"):
            upscale_file(nearest, tmp_path / "a.mkv", tmp_path / target, codec=codec, overwrite=True)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9"])
def test_hdr10(nearest, tmp_path, caplog, codec):
    values = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,500)", "1000,400"
    frames = [frame.astype(np.uint16) * 257 for frame in make_frames(1)]

    def prepare(file, stream):
        stream.options["x264-params"] = f"mastering-display={values[0]}:cll={values[1]}"

    write_video(tmp_path / "a.mp4", frames, prepare=prepare, pix_fmt="yuv420p10le", color_trc=16)
    upscale_file(nearest, tmp_path / "a.mp4", tmp_path / "b.mkv", codec=codec)
    with av.open(str(tmp_path / "b.mkv")) as file:
        frame = next(file.decode(video=0))
        assert frame.color_trc == 16
        named = all(each in caplog.text for each in ("HDR10 mastering display", "light level", "10 bits"))
        assert named if codec == "libvpx-vp9" else (not named and (*video_tags.hdr_values(frame).values(),) == values)


def test_frames_of_another_size_are_scaled_to_the_first(nearest, tmp_path, caplog):
    for name, size, times in (("1.ts", (24, 32), [0, 40]), ("2.ts", (48, 64), [80, 120, 160])):
        write_video(tmp_path / name, make_frames(len(times), size), times=times)
    (tmp_path / "a.ts").write_bytes((tmp_path / "1.ts").read_bytes() + (tmp_path / "2.ts").read_bytes())
    upscale_file(nearest, tmp_path / "a.ts", tmp_path / "b.mp4")
    frames, _ = decode_frames(tmp_path / "b.mp4")
    assert [frame.shape for frame in frames] == [(96, 128, 3)] * 5
    assert np.abs(frames[-1][::4, ::4].astype(int)[16:] - make_frames(3)[2][16:]).mean() < 6
    assert "3 frames of another size" in caplog.text


def test_telemetry_is_named(nearest, tmp_path, caplog):
    write_video(tmp_path / "a.ts", make_frames(2), prepare=lambda file, stream: file.add_data_stream("klv"))
    upscale_file(nearest, tmp_path / "a.ts", tmp_path / "b.mov")
    assert "mov cannot store: data (" in caplog.text


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_time_code(nearest, tmp_path, caplog, suffix):
    def prepare(file, stream):
        stream.metadata["timecode"] = "01:00:00:00"

    write_video(tmp_path / "a.mkv", make_frames(2), prepare=prepare)
    upscale_file(nearest, tmp_path / "a.mkv", tmp_path / f"b{suffix}")
    with av.open(str(tmp_path / f"b{suffix}")) as file:
        kept = file.streams.video[0].metadata.get("TIMECODE")
    assert kept == ("01:00:00:00" if suffix == ".mkv" else None)
    assert ("cannot store: time code" in caplog.text) == (suffix == ".mov")


@pytest.mark.parametrize("name", ["12:30.mp4", "-x.mp4", "%03d.mp4", "concat:a|b.mp4"])
def test_names_are_no_protocols(nearest, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(Path(name), make_frames(2))
    assert upscale_file(nearest, Path(name)).name == f"{name[:-4]}_x4.mp4"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name[:-4]}_x4.mp4"])


def test_last_segment_of_one_or_two_frames(nearest, tmp_path, monkeypatch):
    """libx265 leaves decoding times of such clips uninitialized: what the memory holds depends on earlier clips."""
    monkeypatch.setattr(video, "SEGMENT", 4)
    for count in (9, 5, 6):
        write_video(tmp_path / "a.mp4", make_frames(count))
        upscale_file(nearest, tmp_path / "a.mp4", tmp_path / "b.mp4", codec="libx265", overwrite=True)
        frames, times = decode_frames(tmp_path / "b.mp4")
        assert len(frames) == count and times == [Fraction(i, 25) for i in range(count)]


def jpeg(**options) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "JPEG", **options)
    return data.getvalue()


def add_extras(file, stream) -> None:
    """Add flags, languages, statistics, chapters, a font and a cover."""
    stream.metadata.update({"title": "Cats", "alpha_mode": "1", "BPS-eng": "1000", "_STATISTICS_TAGS": "BPS"})
    for number, other in enumerate(file.streams):
        other.metadata.setdefault("language", "deu")
        other.disposition = (Disposition.forced if number else Disposition.default).value
    file.set_chapters(
        [{"id": 1, "start": 0, "end": 80, "time_base": Fraction(1, 1000), "metadata": {"title": "Intro"}}]
    )
    file.add_attachment("font.ttf", "application/x-truetype-font", b"glyphs")
    file.add_attachment("cover.jpg", "image/jpeg", jpeg())


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".webm"])
def test_flags_languages_chapters_and_attachments(nearest, tmp_path, caplog, suffix):
    write_video(tmp_path / "a.mkv", make_frames(3), sound=True, subtitles=True, prepare=add_extras)
    upscale_file(nearest, tmp_path / "a.mkv", tmp_path / f"b{suffix}")
    with av.open(str(tmp_path / f"b{suffix}")) as file:
        film, *others = [stream for stream in file.streams if stream.type != "data"]
        assert file.chapters()[0]["metadata"]["title"] == "Intro"
        tags = {key.lower(): value for key, value in film.metadata.items()}
        found = {(each.type, each.disposition.name) for each in others}
        assert not {"alpha_mode", "bps-eng", "_statistics_tags"} & {*tags}
        assert tags["language"] == "deu" and film.disposition == Disposition.default
        assert all(each.metadata["language"] == "deu" for each in others if each.type in ("audio", "subtitle"))
        (cover,) = [packet for packet in file.demux() if packet.stream.disposition.name == "attached_pic"][:1] or [b""]
        cover = bytes(cover)
        fonts = [each.data for each in others if each.type == "attachment"]
    if suffix == ".mkv":
        assert tags["title"] == "Cats" and fonts == [b"glyphs"] and not caplog.text
    dropped = {
        ".mkv": [],
        ".mp4": ["subtitle (srt)", "attachment (font.ttf)"],
        ".webm": ["audio (aac)", "subtitle (srt)", "attachment (font.ttf)", "cover (cover.jpg)"],
    }
    assert all(each in caplog.text for each in dropped[suffix])
    assert (cover == jpeg()) == (suffix != ".webm")
    assert (suffix == ".mkv") == ({("audio", "forced"), ("subtitle", "forced")} <= found)


def add_location(file, stream) -> None:
    """Write a place wherever libavformat can."""
    place = "+48.8577+002.2950/"
    file.metadata.update(dict.fromkeys(["title", "location", "location-eng", "GPSLatitude", "camera"], place))
    file.metadata["com.apple.quicktime.location.ISO6709"] = file.metadata["RECORDING_LOCATION"] = place
    for each in file.streams:
        each.metadata.update({"location": place, "language": "deu"})
    chapter = {"id": 1, "start": 0, "end": 80, "time_base": Fraction(1, 1000), "metadata": {"location": place}}
    file.set_chapters([chapter])
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 27.7)}
    file.add_attachment("cover.jpg", "image/jpeg", jpeg(exif=exif))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_no_location_is_left(nearest, tmp_path, exiftool, suffix):
    def places(path: Path) -> list[str]:
        found = [f"{key} {value}" for key, value in exiftool(path).items() if not key.startswith(("System", "Source"))]
        return [each for each in found if re.search("gps|geo|location|48.85", each, re.IGNORECASE)]

    text = b"F/2.8, GPS (2.2950, 48.8577, 15), D 1.1m"
    write_video(tmp_path / "a.mkv", make_frames(3), subtitles=text, sound=True, prepare=add_location)
    upscale_file(nearest, tmp_path / "a.mkv", tmp_path / f"kept{suffix}")
    assert places(tmp_path / f"kept{suffix}")
    for strip in ("gps", "all"):
        target = upscale_file(nearest, tmp_path / "a.mkv", tmp_path / f"{strip}{suffix}", strip_metadata=strip)
        assert not places(target)
        assert not re.search(b"48.8577|Exif|48, ?51", target.read_bytes())
        with av.open(str(target)) as file:
            tags = {key.lower(): value for key, value in file.streams.video[0].metadata.items()}
        assert tags["language"] == ("ger" if suffix == ".mov" else "deu")


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


def rotate(path: Path, degrees: int) -> None:
    """Set the display matrix of an MP4's track, counterclockwise."""
    data = bytearray(path.read_bytes())
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    struct.pack_into(">2iI2i", data, data.index(b"tkhd") + 44, cos << 16, -sin << 16, 0, sin << 16, cos << 16)
    path.write_bytes(data)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied_and_aspect_kept(nearest, tmp_path, rotation):
    write_video(tmp_path / "a.mp4", make_frames(2), sample_aspect_ratio=Fraction(4, 3))
    rotate(tmp_path / "a.mp4", rotation)
    upscale_file(nearest, tmp_path / "a.mp4", tmp_path / "b.mp4", crf=1)
    with av.open(str(tmp_path / "b.mp4")) as file:
        frame = next(file.decode(video=0))
        assert frame.rotation == 0
        assert file.streams.video[0].sample_aspect_ratio == (Fraction(4, 3) if rotation == 180 else Fraction(3, 4))
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert next(file.decode(video=0)).rotation % 360 == rotation
    rotated = np.rot90(decode_frames(tmp_path / "a.mp4")[0][0], rotation // 90)
    assert np.abs(frame.to_ndarray(format="rgb24")[::4, ::4].astype(int) - rotated).mean() < 2


def test_odd_sizes_become_even(upscaler, tmp_path):
    write_video(tmp_path / "a.mp4", make_frames(1))
    upscale_file(upscaler, tmp_path / "a.mp4", tmp_path / "b.mp4", size=(47, 33))
    assert decode_frames(tmp_path / "b.mp4")[0][0].shape == (32, 46, 3)


@pytest.mark.parametrize(("codec", "name"), [("libx265", "hevc"), ("libvpx-vp9", "vp9"), ("libsvtav1", "dav1d")])
def test_codecs(nearest, tmp_path, codec, name):
    write_video(tmp_path / "a.mp4", make_frames(8))
    upscale_file(nearest, tmp_path / "a.mp4", tmp_path / "b.mkv", codec=codec, crf=20)
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert file.streams.video[0].codec_context.name.removeprefix("lib") in (name, codec.removeprefix("lib"))


def test_errors(nearest, tmp_path, monkeypatch):
    opened, open_file = [], av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: opened.append(open_file(*args, **options)) or opened[-1])
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
        opened.clear()
        with pytest.raises(ImageError, match=message):
            upscale_file(nearest, tmp_path / name, tmp_path / "b.mp4", **options)
        if name == "sound.mp4":
            with pytest.raises(AssertionError, match="not open"):
                opened[0].seek(0)
    with pytest.raises(ImageError, match=r"cannot save video as .png; use .mp4, "):
        upscale_file(nearest, tmp_path / "a.mp4", tmp_path / "b.png")
    assert not (tmp_path / "b.mp4").exists()
    monkeypatch.setattr(nearest, "upscale", lambda image, **options: 1 / 0)
    with pytest.raises(ImageError, match="division by zero"):
        upscale_file(nearest, tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert not work_directories(tmp_path)


def work_directories(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.suffix in (".segments", ".rows")]


def interrupt(nearest, source: Path, target: Path, frame: int, **options) -> None:
    """Upscale in a process that is killed at a frame."""
    child = os.fork()
    if child == 0:
        numbers = itertools.count(1)
        upscale = nearest.upscale
        nearest.upscale = lambda *args, **kwargs: (
            os.kill(os.getpid(), signal.SIGKILL) if next(numbers) == frame else upscale(*args, **kwargs)
        )
        try:
            upscale_file(nearest, source, target, **options)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_work_directories_of_interrupted_runs(nearest, tmp_path, monkeypatch):
    """Those for the same output or input with other settings are removed, and others resumed, unless abandoned."""
    monkeypatch.setattr(video, "SEGMENT", 2)
    for name in ("a.mkv", "other.mkv"):
        write_video(tmp_path / name, make_frames(5))
    interrupt(nearest, tmp_path / "a.mkv", tmp_path / "b.mkv", 4)
    (first,) = work_directories(tmp_path)
    interrupt(nearest, tmp_path / "a.mkv", tmp_path / "b.mkv", 4, crf=30)
    (second,) = work_directories(tmp_path)
    assert first != second and (tmp_path / second / "000000").exists()
    upscale_file(nearest, tmp_path / "other.mkv", tmp_path / "unrelated.mkv")
    assert work_directories(tmp_path) == [second]
    decoded = []
    read = video.VideoReader.read
    monkeypatch.setattr(video.VideoReader, "read", lambda self, first: decoded.append(first) or read(self, first))
    upscale_file(nearest, tmp_path / "a.mkv", tmp_path / "b.mkv", crf=30)
    assert decoded == [2] and not work_directories(tmp_path)
    interrupt(nearest, tmp_path / "a.mkv", tmp_path / "c.mkv", 4)
    upscale_file(nearest, tmp_path / "a.mkv", tmp_path / "d.mkv")
    assert not work_directories(tmp_path)
    interrupt(nearest, tmp_path / "a.mkv", tmp_path / "c.mkv", 4)
    os.utime(tmp_path / work_directories(tmp_path)[0], (0, 0))
    upscale_file(nearest, tmp_path / "other.mkv", tmp_path / "unrelated.mkv", overwrite=True)
    assert not work_directories(tmp_path)


def test_work_directory_in_use_stays(nearest, tmp_path):
    write_video(tmp_path / "a.mkv", make_frames(2))

    def writer(target: Path, crf: int) -> video.VideoWriter:
        reader = video.VideoReader(tmp_path / "a.mkv", (tmp_path / "a.mkv").open("rb"), None)
        return video.VideoWriter(reader, target, media.Output(target, 128, 96, SaveOptions(crf=crf)))

    with writer(tmp_path / "b.mkv", 1), writer(tmp_path / "b.mkv", 2):
        assert len(work_directories(tmp_path)) == 2
        with pytest.raises(ImageError, match="another process"):
            writer(tmp_path / "b.mkv", 2)
    with writer(tmp_path / "b.mkv", 3):
        assert len(work_directories(tmp_path)) == 1


# Kills itself when a number of frames have been upscaled.
INTERRUPTED = """
import os, signal, sys
from srgan_hub import frames
from srgan_hub.images import media, video, video_tags
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
