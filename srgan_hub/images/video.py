"""Video, by PyAV: decoded, upscaled, encoded; times, colors and pixel aspect as they were, sound and subtitles copied.

A video takes long, so it is made in segments of so many frames, each a file that is whole or not there, in a hidden
folder beside the result. A run that was killed goes on behind the last one; at the end their packets are joined as they
are.
"""

import hashlib
import heapq
import json
import logging
import shutil
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np

from ..fileio import atomic_write, remove_stale_parts
from . import decode
from .media import Media, MediaUpscaler, OutputOptions
from .raster import Raster

logger = logging.getLogger(__name__)

SEGMENT = 120  # frames
_CRF = {"libx264": 17, "libx265": 20, "libvpx-vp9": 28, "libsvtav1": 28}
_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".m4v")


class Video(Media):
    """An opened video; its first video stream counts.

    Args:
        path: the file.
        max_pixels: the largest frame.

    Raises:
        ImageError: it cannot be read.
    """

    kind: ClassVar[str] = "a video"
    requires_even_size: ClassVar[bool] = True
    suffixes = _SUFFIXES

    def __init__(self, path: Path, max_pixels: int | None) -> None:
        self.path = path
        try:
            with av.open(str(path), metadata_errors="replace") as source:
                if not source.streams.video:
                    raise decode.ImageError(f"{path} holds no images.")
                stream = source.streams.video[0]
                first = next(iter(source.decode(stream)), None)
                if first is None:
                    raise decode.ImageError(f"{path} holds no frame that can be read.")
                seconds = source.duration / av.time_base if source.duration else 0.0
                rate = stream.average_rate or stream.guessed_rate or Fraction(25)
                self.count = stream.frames or round(seconds * rate) or 1
        except (av.FFmpegError, OSError) as error:
            if isinstance(error, decode.ImageError):
                raise
            raise decode.ImageError(f"{path} cannot be read: {_reason(error)}.") from error
        if max_pixels is not None and first.width * first.height > max_pixels:
            raise decode.ImageError(
                f"{path} has {first.width} x {first.height} pixels; the limit is {max_pixels / 1e6:.3g} million pixels."
            )
        self._rotation = round(first.rotation / 90) % 4
        self.width, self.height = (first.height, first.width) if self._rotation % 2 else (first.width, first.height)
        self._bits = max(component.bits for component in first.format.components)
        self._first, self._rate = first, rate
        self._aspect = stream.sample_aspect_ratio
        if self._rotation % 2 and self._aspect:
            self._aspect = 1 / self._aspect

    def write(self, media_upscaler: MediaUpscaler, tmp_path: Path, output: OutputOptions) -> None:
        """Write the segments that are not there yet, then join them."""
        if output.codec and output.codec not in av.codecs_available:
            raise decode.ImageError(f"{self.path}: there is no codec {output.codec!r} here; take libx264 or another.")
        codec = output.codec or ("libvpx-vp9" if output.path.suffix.lower() == ".webm" else "libx264")
        crf = _CRF.get(codec) if output.crf is None else output.crf
        facts = self.path.stat()
        plan = {
            "source": [facts.st_size, facts.st_mtime_ns],
            "key": output.key,
            "codec": [codec, crf],
            "frames": SEGMENT,
        }
        name = hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:16]
        folder = output.path.with_name(f".{output.path.name[:50]}.{name}.segments")
        folder.mkdir(exist_ok=True)
        remove_stale_parts(folder)
        try:
            self._encode_segments(media_upscaler, folder, codec, crf)
            _mux(self.path, sorted(folder.glob("*.mp4")), tmp_path, output)
        except av.FFmpegError as error:
            raise decode.ImageError(f"{output.path} cannot be written: {_reason(error)}.") from error
        shutil.rmtree(folder)

    def _encode_segments(self, media_upscaler: MediaUpscaler, folder: Path, codec: str, crf: int | None) -> None:
        frames = _decode(self.path)
        for number in range(10**9):
            path = folder / f"{number:06}.mp4"
            if path.exists():
                count = sum(1 for _ in islice(frames, SEGMENT))
            elif (first := next(frames, None)) is None:
                return
            else:
                part = chain([first], islice(frames, SEGMENT - 1))
                with atomic_write(path) as tmp_path:
                    count = self._encode(media_upscaler, number * SEGMENT, part, tmp_path, codec, crf)
            if count < SEGMENT:
                return

    def _to_raster(self, frame: av.VideoFrame) -> Raster:
        kind = "rgb48le" if self._bits > 8 else "rgb24"
        array = frame.to_ndarray(format=kind)
        return Raster(np.ascontiguousarray(np.rot90(array, self._rotation)))

    def _encode(
        self,
        media_upscaler: MediaUpscaler,
        number: int,
        frames: Iterator[av.VideoFrame],
        path: Path,
        codec: str,
        crf: int | None,
    ) -> int:
        """Upscale and encode frames, of which the first has this number. Return how many there were."""
        waiting: deque[av.VideoFrame] = deque()

        def rasters() -> Iterator[Raster]:
            for frame in frames:
                waiting.append(frame)
                yield self._to_raster(frame)

        count = 0
        with av.open(str(path), "w", format="mp4") as file:
            options = {} if crf is None else {"crf": str(crf)}
            stream: Any = file.add_stream(codec, rate=self._rate, options=options)
            context, first = stream.codec_context, self._first
            for count, result in enumerate(media_upscaler.frames(rasters(), number), 1):
                frame = waiting.popleft()
                if count == 1:
                    stream.width, stream.height = result.width, result.height
                    stream.pix_fmt = self._format(codec)
                    stream.time_base = context.time_base = frame.time_base
                    context.color_range, context.colorspace = first.color_range, first.colorspace
                    context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
                    if self._aspect:
                        context.sample_aspect_ratio = self._aspect
                large = av.VideoFrame.from_ndarray(result.array, format="rgb48le" if result.bits > 8 else "rgb24")
                large = large.reformat(
                    format=context.pix_fmt, dst_colorspace=first.colorspace, dst_color_range=first.color_range
                )
                large.pts, large.time_base = frame.pts, frame.time_base
                file.mux(stream.encode(large))
            file.mux(stream.encode())
        return count

    def _format(self, codec: str) -> str:
        """Return the pixel format that the codec has for this video: its own, or with subsampled colors."""
        own = self._first.format.name
        wanted = [own, "yuv420p10le" if self._bits > 8 else "yuv420p"]
        offered = [each.name for each in av.Codec(codec, "w").video_formats or []]
        return next((each for each in wanted if each in offered), offered[0])


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path), metadata_errors="replace") as source:
        stream = source.streams.video[0]
        stream.thread_type = "AUTO"
        yield from source.decode(stream)


def _mux(source_path: Path, segments: list[Path], path: Path, output: OutputOptions) -> None:
    """Write the packets of the segments, and those of the source's other streams, into one file."""
    kind = {".mkv": "matroska", ".m4v": "mp4"}.get(output.path.suffix.lower(), output.path.suffix.lower()[1:])
    with (
        av.open(str(source_path), metadata_errors="replace") as source,
        av.open(str(segments[0])) as first,
        av.open(str(path), "w", format=kind) as file,
    ):
        if output.strip_metadata != "all":
            place = (
                ("location", "location-eng", "com.apple.quicktime.location.ISO6709")
                if output.strip_metadata == "gps"
                else ()
            )
            file.metadata.update({key: value for key, value in source.metadata.items() if key not in place})
        if output.software:
            file.metadata["encoder"] = output.software
        image = file.add_stream_from_template(first.streams.video[0])
        image.metadata.update(source.streams.video[0].metadata)
        others, lost = {}, []
        for stream in source.streams:
            if stream.type not in ("audio", "subtitle"):
                continue
            if stream.codec_context is not None and stream.codec_context.name in file.supported_codecs:
                others[stream.index] = file.add_stream_from_template(stream)
                others[stream.index].metadata.update(stream.metadata)
            else:
                lost.append(f"{stream.type} ({stream.codec_context.name if stream.codec_context else 'unknown'})")
        if lost:
            logger.warning("%s: left out, which %s cannot hold: %s", output.path, kind, ", ".join(lost))
        file.set_chapters(source.chapters())
        copied = (
            packet for packet in source.demux(*(source.streams[index] for index in others)) if packet.dts is not None
        )
        for packet in heapq.merge(_packets(segments), copied if others else (), key=_time):
            index = None if packet.stream.type == "video" else packet.stream.index
            packet.stream = image if index is None else others[index]
            file.mux(packet)


def _packets(segments: list[Path]) -> Iterator[Any]:
    """Yield the segments' packets. Where times vary, one may begin to be decoded before the last has ended."""
    last: int | None = None
    for segment in segments:
        with av.open(str(segment)) as file:
            for packet in file.demux(file.streams.video[0]):
                if packet.dts is None:
                    continue
                if last is not None and packet.dts <= last:
                    packet.dts = last + 1
                last = packet.dts
                yield packet


def _time(packet: Any) -> Fraction:
    return (packet.dts or 0) * packet.time_base


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
