"""Video decoding and encoding with PyAV; timestamps, colors and pixel aspect are kept, sound and subtitles copied.

A video is encoded in segments of a fixed number of frames, in a hidden directory next to the output. An interrupted run
resumes after the last complete one; at the end their packets are joined unchanged.
"""

import heapq
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import av
import numpy as np

from ..fileio import atomic_write, remove_stale_parts
from .errors import ImageError, describe
from .media import MediaReader, MediaWriter, Output
from .metadata import Metadata
from .raster import Raster

logger = logging.getLogger(__name__)

SEGMENT = 120  # frames
_CRF = {"libx264": 17, "libx265": 20, "libvpx-vp9": 28, "libsvtav1": 28}
_GPS_KEYS = ("location", "location-eng", "com.apple.quicktime.location.ISO6709")


@dataclass
class Frame(Raster):
    """A frame with its presentation time."""

    pts: int | None = None
    time_base: Fraction | None = None


class VideoReader(MediaReader):
    """Reader of the frames of a file's first video stream. Arguments as for `Opened`."""

    kind: ClassVar[str] = "video"

    def __init__(self, path: Path, file: BinaryIO, max_pixels: int | None) -> None:
        super().__init__(path, file, None, max_pixels)
        file.seek(0)
        try:
            self._container = av.open(file, "r", metadata_errors="replace")
            if not self._container.streams.video:
                raise ImageError(f"'{path}' contains no video stream.")
            stream = self._container.streams.video[0]
            stream.thread_type = "AUTO"
            self._frames = self._container.decode(stream)
            first = next(self._frames, None)
            if first is None:
                raise ImageError(f"'{path}' contains no frame that can be decoded.")
            duration = self._container.duration
            self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            self.count = stream.frames or round((duration / av.time_base if duration else 0.0) * self.rate) or 1
        except (av.FFmpegError, OSError) as error:
            raise ImageError(f"Cannot decode '{path}': {describe(error)}.") from error
        self.first = first
        self._rotation = round(first.rotation / 90) % 4
        self.width, self.height = first.width, first.height
        self.aspect = stream.sample_aspect_ratio
        if self._rotation % 2:
            self.width, self.height = self.height, self.width
            self.aspect = self.aspect and 1 / self.aspect
        self.bits = max(component.bits for component in first.format.components)

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        super().close()

    def read(self, first: int = 0) -> Iterator[Frame]:
        """Yield the frames; once."""
        pixel_format = "rgb48le" if self.bits > 8 else "rgb24"
        try:
            for frame in islice(chain([self.first], self._frames), first, None):
                array = np.ascontiguousarray(np.rot90(frame.to_ndarray(format=pixel_format), self._rotation))
                yield Frame(array, pts=frame.pts, time_base=frame.time_base)
        except av.FFmpegError as error:
            raise ImageError(f"Cannot decode '{self.path}': {describe(error)}.") from error


class VideoWriter(MediaWriter):
    """Writer of frames."""

    reader: VideoReader

    def __init__(self, reader: VideoReader, path: Path, output: Output) -> None:
        super().__init__(reader, path, output)
        codec = output.options.codec or ("libvpx-vp9" if output.path.suffix.lower() == ".webm" else "libx264")
        if codec not in av.codecs_available:
            raise ImageError(f"'{reader.path}': the codec {codec!r} is unavailable; use libx264 or another.")
        self._codec = codec
        self._crf = _CRF.get(codec) if output.options.crf is None else output.options.crf
        self._directory = self._make_work_directory("segments", codec, self._crf, SEGMENT)
        remove_stale_parts(self._directory)
        self.done = SEGMENT * len(self._segments())
        self.restart_interval = SEGMENT

    def write(self, pieces: Iterator[Frame]) -> None:
        """Encode the frames after the first `done`, and join all segments."""
        try:
            for number, first in enumerate(pieces, self.done // SEGMENT):
                with atomic_write(self._directory / f"{number:06}.mp4") as temporary:
                    self._encode(first, islice(pieces, SEGMENT - 1), temporary)
            self._join()
        except av.FFmpegError as error:
            raise ImageError(f"'{self.output.path}' cannot be written: {describe(error)}.") from error
        shutil.rmtree(self._directory)

    def _segments(self) -> list[Path]:
        return sorted(self._directory.glob("*.mp4"))

    def _encode(self, first: Frame, others: Iterator[Frame], path: Path) -> None:
        source = self.reader.first
        with av.open(str(path), "w", format="mp4") as file:
            options = {} if self._crf is None else {"crf": str(self._crf)}
            stream: Any = file.add_stream(self._codec, rate=self.reader.rate, options=options)
            context = stream.codec_context
            stream.width, stream.height = first.width, first.height
            stream.pix_fmt = self._pixel_format()
            stream.time_base = context.time_base = first.time_base
            context.color_range, context.colorspace = source.color_range, source.colorspace
            context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
            if self.reader.aspect:
                context.sample_aspect_ratio = self.reader.aspect
            colors = {"dst_colorspace": source.colorspace, "dst_color_range": source.color_range}
            for frame in chain([first], others):
                rgb = av.VideoFrame.from_ndarray(frame.array, format="rgb48le" if frame.bits > 8 else "rgb24")
                converted = rgb.reformat(format=context.pix_fmt, **colors)
                converted.pts, converted.time_base = frame.pts, frame.time_base
                file.mux(stream.encode(converted))
            file.mux(stream.encode())

    def _pixel_format(self) -> str:
        """Return the codec's pixel format for this video: the video's own, or with subsampled colors."""
        own = self.reader.first.format.name
        wanted = [own, "yuv420p10le" if self.reader.bits > 8 else "yuv420p"]
        offered = [each.name for each in av.Codec(self._codec, "w").video_formats or []]
        return next((each for each in wanted if each in offered), offered[0])

    def _join(self) -> None:
        """Mux the packets of the segments, and those of the source's other streams, into one file."""
        segments, path, options = self._segments(), self.output.path, self.output.options
        container = {".mkv": "matroska", ".m4v": "mp4"}.get(path.suffix.lower(), path.suffix.lower()[1:])
        with (
            av.open(str(self.reader.path), metadata_errors="replace") as source,
            av.open(str(segments[0])) as first,
            av.open(str(self.path), "w", format=container) as file,
        ):
            if options.strip_metadata != "all":
                dropped = _GPS_KEYS if options.strip_metadata == "gps" else ()
                file.metadata.update({key: value for key, value in source.metadata.items() if key not in dropped})
            if software := options.apply_to(Metadata()).software:
                file.metadata["encoder"] = software
            video = file.add_stream_from_template(first.streams.video[0])
            video.metadata.update(source.streams.video[0].metadata)
            others, lost = {}, []
            for stream in source.streams:
                if stream.type not in ("audio", "subtitle"):
                    continue
                codec = stream.codec_context.name if stream.codec_context else "unknown"
                if codec in file.supported_codecs:
                    others[stream.index] = file.add_stream_from_template(stream)
                    others[stream.index].metadata.update(stream.metadata)
                else:
                    lost.append(f"{stream.type} ({codec})")
            if lost:
                logger.warning("'%s': dropped what %s cannot store: %s", path, container, ", ".join(lost))
            file.set_chapters(source.chapters())
            demuxed = source.demux(*(source.streams[index] for index in others)) if others else ()
            copied = (packet for packet in demuxed if packet.dts is not None)
            for packet in heapq.merge(_packets(segments), copied, key=lambda packet: packet.dts * packet.time_base):
                packet.stream = video if packet.stream.type == "video" else others[packet.stream.index]
                file.mux(packet)


def _packets(segments: list[Path]) -> Iterator[Any]:
    """Yield the segments' packets. With a variable frame rate, one may start before the previous one has ended."""
    last: int | None = None
    for segment in segments:
        with av.open(str(segment)) as file:
            for packet in file.demux(file.streams.video[0]):
                if packet.dts is not None:
                    packet.dts = last = packet.dts if last is None else max(packet.dts, last + 1)
                    yield packet
