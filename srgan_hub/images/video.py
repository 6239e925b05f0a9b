"""Video decoding and encoding with PyAV; timestamps, colors, alpha and pixel aspect are kept, other streams copied.

A video is encoded in segments of a fixed number of frames, in a hidden directory next to the output. An interrupted run
resumes after the last complete one; at the end their packets are joined unchanged.
"""

import heapq
import io
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import av
import numpy as np
from av.codec.codec import find_best_pix_fmt_of_list
from av.stream import Disposition

from ..fileio import atomic_write, remove_stale_parts
from . import video_tags
from .errors import ImageError, describe
from .media import MediaReader, MediaWriter, Output
from .metadata import Metadata
from .raster import Raster

logger = logging.getLogger(__name__)

SEGMENT = 120  # frames
_CRF = {"libx264": 17, "libx265": 20, "libvpx-vp9": 28, "libsvtav1": 28}
# By suffix, the default encoder of videos without and with alpha; of other suffixes, H.264.
_CODECS = {".webm": ("libvpx-vp9", "libvpx-vp9"), ".mkv": ("libx264", "ffv1"), ".mov": ("libx264", "prores_ks")}
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # other decoders ignore alpha
# The encoder's option that takes HDR10 metadata, and the parameters in it.
_HDR_OPTIONS = {
    "libx264": ("x264-params", {"MASTERING_DISPLAY_METADATA": "mastering-display", "CONTENT_LIGHT_LEVEL": "cll"}),
    "libx265": ("x265-params", {"MASTERING_DISPLAY_METADATA": "master-display", "CONTENT_LIGHT_LEVEL": "max-cll"}),
}
_IMAGE_METADATA = re.compile(rb"exif|xmpmeta|ns\.adobe\.com|Photoshop 3\.0", re.IGNORECASE)
# Flags of libswscale: bilinear, full chroma and accurate rounding, which PyAV 18 and later name.
_SCALING = 1 << 1 | 1 << 13 | 1 << 18


@dataclass
class Frame(Raster):
    """A frame with its presentation time."""

    pts: int | None = None
    time_base: Fraction | None = None


class VideoReader(MediaReader):
    """Reader of the frames of a file's first video stream that is no cover. Arguments as for `Opened`.

    Attributes:
        index: The stream's index.
        has_alpha: Whether the frames have alpha.
        resized: Number of frames read so far that were scaled to the size of the first.
    """

    kind: ClassVar[str] = "video"

    def __init__(self, path: Path, file: BinaryIO, max_pixels: int | None) -> None:
        super().__init__(path, file, None, max_pixels)
        file.seek(0)
        try:
            self.container = av.open(file, "r", metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise ImageError(f"Cannot decode '{path}': {describe(error)}.") from error
        try:
            self._read_first()
        except BaseException as error:
            self.container.close()
            if isinstance(error, (av.FFmpegError, OSError)):
                raise ImageError(f"Cannot decode '{path}': {describe(error)}.") from error
            raise

    def _read_first(self) -> None:
        container = self.container
        stream = next((each for each in container.streams.video if not _is_cover(each)), None)
        if stream is None:
            raise ImageError(f"'{self.path}' contains no video stream.")
        self.index = stream.index
        stream.thread_type = "AUTO"
        self._frames = self._decode_frames(stream)
        first = next(self._frames, None)
        if first is None:
            raise ImageError(f"'{self.path}' contains no frame that can be decoded.")
        duration = container.duration
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.count = stream.frames or round((duration / av.time_base if duration else 0.0) * self.rate) or 1
        self.first, self.resized = first, 0
        self._rotation = round(first.rotation / 90) % 4
        self.width, self.height = first.width, first.height
        self.aspect = stream.sample_aspect_ratio
        if self._rotation % 2:
            self.width, self.height = self.height, self.width
            self.aspect = self.aspect and 1 / self.aspect
        self.bits = max(component.bits for component in first.format.components)
        self.has_alpha = _has_alpha(first.format)

    def _decode_frames(self, stream: Any) -> Iterator[Any]:
        context, name = stream.codec_context, _ALPHA_DECODERS.get(stream.codec_context.name)
        has_alpha = ("alpha_mode", "1") in ((key.lower(), value) for key, value in stream.metadata.items())
        if has_alpha and name in av.codecs_available:
            context = av.CodecContext.create(name, "r")
        for packet in self.container.demux(stream):
            yield from context.decode(packet)

    def close(self) -> None:
        """Close the file."""
        self.container.close()
        super().close()

    def read(self, first: int = 0) -> Iterator[Frame]:
        """Yield the frames; once."""
        pixel_format = _array_format(self.has_alpha, self.bits)
        size = {"width": self.first.width, "height": self.first.height}
        try:
            for number, frame in enumerate(chain([self.first], self._frames)):
                self.resized += (frame.width, frame.height) != (*size.values(),)
                if number >= first:
                    frame.colorspace, frame.color_range = video_tags.color_tags(frame)
                    array = np.rot90(
                        frame.to_ndarray(format=pixel_format, interpolation=_SCALING, **size), self._rotation
                    )
                    yield Frame(np.ascontiguousarray(array), pts=frame.pts, time_base=frame.time_base)
        except av.FFmpegError as error:
            raise ImageError(f"Cannot decode '{self.path}': {describe(error)}.") from error


class VideoWriter(MediaWriter):
    """Writer of frames. What the output cannot store is logged in advance."""

    reader: VideoReader

    def __init__(self, reader: VideoReader, path: Path, output: Output) -> None:
        super().__init__(reader, path, output)
        suffix, options = output.path.suffix.lower(), output.options
        self._container = {".mkv": "matroska", ".m4v": "mp4"}.get(suffix, suffix[1:])
        self._codec = codec = options.codec or _CODECS.get(suffix, ("libx264", "libx264"))[reader.has_alpha]
        try:
            self._encoder = av.Codec(codec, "w")
        except ValueError:
            message = f"'{reader.path}': the codec {codec!r} is unavailable; use libx264 or another."
            raise ImageError(message) from None
        self._crf = _CRF.get(codec) if options.crf is None else options.crf
        self._options = {} if self._crf is None else {"crf": str(self._crf)}
        self._alpha = reader.has_alpha and self._stores_alpha()
        self._vp9_alpha = self._alpha and codec == "libvpx-vp9"
        self._pixel_format = self._choose_pixel_format()
        self._color_tags = video_tags.output_color_tags(reader.first, av.VideoFormat(self._pixel_format).is_rgb, codec)
        with av.open(io.BytesIO(), "w", format="mp4") as mp4:
            # MP4 keeps timestamps exactly, and loses the alpha of VP9.
            in_mp4 = codec in mp4.supported_codecs and not self._vp9_alpha
        self._segment_format = "mp4" if in_mp4 else self._container
        lost = self._plan_streams()
        try:
            with av.open(io.BytesIO(), "w", format=self._container) as probe:
                self._add_encoder(probe, 64, 64, Fraction(1, 1000))
                probe.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            reason = f"{codec} cannot write a {suffix} file with these options ({describe(error)})"
            raise ImageError(f"'{output.path}': {reason}; use another `codec` or suffix.") from error
        if lost:
            message = "'%s': dropped what %s in %s cannot store: %s"
            logger.warning(message, output.path, codec, self._container, ", ".join(lost))
        self._segments_directory = self._make_work_directory("segments", codec, self._crf, SEGMENT)
        remove_stale_parts(self._segments_directory)
        self.done = SEGMENT * len(self._segments())
        self.restart_interval = SEGMENT

    def write(self, pieces: Iterator[Frame]) -> None:
        """Encode the frames after the first `done`, and join all segments."""
        try:
            for number, first in enumerate(pieces, self.done // SEGMENT):
                with atomic_write(self._segments_directory / f"{number:06}") as temporary:
                    self._encode(first, islice(pieces, SEGMENT - 1), temporary)
            self._join()
        except av.FFmpegError as error:
            raise ImageError(f"'{self.output.path}' cannot be written: {describe(error)}.") from error
        if self.reader.resized:
            message = "'%s': %d frames of another size were scaled to that of the first"
            logger.warning(message, self.output.path, self.reader.resized)
        shutil.rmtree(self._segments_directory)

    def _segments(self) -> list[Path]:
        return sorted(self._segments_directory.glob("[0-9]*"))

    def _stores_alpha(self) -> bool:
        if self._codec == "libvpx-vp9":
            return self._container in ("matroska", "webm")
        # libx265 lists formats with alpha, and does not encode them.
        return self._codec != "libx265" and any(map(_has_alpha, self._encoder.video_formats or []))

    def _choose_pixel_format(self) -> str:
        """Return the encoder's pixel format: the video's own, or with subsampled colors if the encoder is lossy."""
        own, lossy = self.reader.first.format.name, self._encoder.lossy
        subsampled = ("yuva" if self._alpha else "yuv") + ("420p10le" if self.reader.bits > 8 else "420p")
        if self._vp9_alpha:  # which is encoded of this format only
            return "yuva420p"
        offered = [each for each in self._encoder.video_formats or [] if _has_alpha(each) == self._alpha]
        names = [each.name for each in offered if not (lossy and each.is_rgb)] or [each.name for each in offered]
        wanted = subsampled if lossy and own not in names and subsampled in names else own
        best, _ = find_best_pix_fmt_of_list(names, wanted, self._alpha)
        return best.name if best else subsampled

    def _plan_streams(self) -> list[str]:
        """Choose streams to copy, and options for HDR; return the names of what the output cannot store."""
        reader, strip = self.reader, self.output.options.strip_metadata
        lost = ["alpha (.mov, .mkv and .webm store it)"] if reader.has_alpha and not self._alpha else []
        reader.has_alpha = self._alpha  # what is dropped is not upscaled
        if reader.bits > 8 and max(each.bits for each in av.VideoFormat(self._pixel_format).components) == 8:
            lost.append(f"{reader.bits} bits per channel")
        tags = [key.lower() for each in (reader.container, *reader.container.streams) for key in each.metadata]
        if self._container in video_tags.TIMELESS and "timecode" in tags:
            lost.append("time code")
        self._kept: dict[int, bytes | None] = {}  # index of a stream: the cover, or None
        for stream in reader.container.streams:
            if stream.index == reader.index or _is_restored(stream):
                continue
            cover = _read_cover(reader.path, stream.index) if _is_cover(stream) else None
            if cover and (strip == "all" or (strip and _IMAGE_METADATA.search(cover))):
                continue
            if (cover or stream.type in ("audio", "subtitle", "attachment")) and _can_store(self._container, stream):
                self._kept[stream.index] = cover
            else:
                lost.append(f"{'cover' if cover else stream.type} ({_name(stream)})")
        values = video_tags.hdr_values(reader.first)
        option, names = _HDR_OPTIONS.get(self._codec, ("", {}))
        if kept := [f"{names[key]}={value}" for key, value in values.items() if key in names]:
            self._options[option] = ":".join(kept)
        missing = video_tags.side_data(reader.first).keys() - (values.keys() & names.keys())
        return lost + [text for key, text in video_tags.SIDE_DATA.items() if key in missing]

    def _add_encoder(self, file: Any, width: int, height: int, time_base: Fraction | None) -> Any:
        source = self.reader.first
        stream = file.add_stream(self._codec, rate=self.reader.rate, options=self._options)
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = width, height, self._pixel_format
        stream.time_base = context.time_base = time_base
        context.colorspace, context.color_range = self._color_tags
        context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
        if self.reader.aspect:
            context.sample_aspect_ratio = self.reader.aspect
        return stream

    def _encode(self, first: Frame, others: Iterator[Frame], path: Path) -> None:
        matrix, color_range = self._color_tags
        # libswscale numbers one matrix otherwise.
        colors = {"dst_colorspace": {6: 5}.get(matrix, matrix), "dst_color_range": color_range} if matrix else {}
        with av.open(f"file:{path}", "w", format=self._segment_format) as file:
            stream = self._add_encoder(file, first.width, first.height, first.time_base)
            count = 0
            for frame in chain([first], others):
                rgb = av.VideoFrame.from_ndarray(frame.array, format=_array_format(frame.has_alpha, frame.bits))
                converted = rgb.reformat(format=self._pixel_format, interpolation=_SCALING, **colors)
                converted.colorspace, converted.color_range = matrix, color_range
                converted.pts, converted.time_base = frame.pts, frame.time_base
                file.mux(stream.encode(converted))
                count += 1
            packets = stream.encode()
            if count < 3:  # libx265 leaves the decoding times of one or two frames uninitialized
                for packet in packets:
                    packet.dts = packet.pts
            file.mux(packets)

    def _join(self) -> None:
        """Mux the packets of the segments, and those of the source's other streams, into one file."""
        segments, options = self._segments(), self.output.options
        kept = partial(video_tags.kept_tags, strip=options.strip_metadata, container=self._container)
        with (
            av.open(f"file:{self.reader.path}", metadata_errors="replace") as source,
            av.open(f"file:{segments[0]}") as first,
            av.open(f"file:{self.path}", "w", format=self._container) as file,
        ):
            file.metadata.update(kept(source.metadata))
            if software := options.apply_to(Metadata()).software:
                file.metadata["encoder"] = software
            film = source.streams[self.reader.index]
            video: Any = file.add_stream_from_template(first.streams.video[0], opaque=True)
            video.metadata.update(kept(film.metadata), **({"alpha_mode": "1"} if self._vp9_alpha else {}))
            video.disposition = film.disposition.value
            others: dict[int, Any] = {}
            covers: list[Any] = []
            for index, cover in self._kept.items():
                stream = source.streams[index]
                if cover and self._container == "matroska":
                    kind = {"mjpeg": "jpeg"}.get(stream.codec_context.name, stream.codec_context.name)
                    name = stream.metadata.get("filename", f"cover.{kind}")
                    file.add_attachment(name, f"image/{kind}", cover)
                    continue
                added: Any = file.add_stream_from_template(stream, opaque=True)
                others[index] = added
                added.metadata.clear()
                added.metadata.update(kept(stream.metadata, stale=True))
                added.disposition = stream.disposition.value
                if cover:
                    packet = av.Packet(cover)
                    packet.stream, packet.pts, packet.dts, packet.time_base = added, 0, 0, Fraction(1)
                    covers.append(packet)
            chapters = source.chapters()
            file.set_chapters([{**each, "metadata": kept(each["metadata"], stale=True)} for each in chapters])
            file.mux(covers)
            copied = [source.streams[index] for index in others if not self._kept[index]]
            demuxed = (packet for packet in (source.demux(*copied) if copied else ()) if packet.dts is not None)
            if options.strip_metadata:
                demuxed = (packet for packet in demuxed if not video_tags.is_telemetry(packet))
            for packet in heapq.merge(_packets(segments), demuxed, key=lambda packet: packet.dts * packet.time_base):
                packet.stream = video if packet.stream.type == "video" else others[packet.stream.index]
                file.mux(packet)


def _packets(segments: list[Path]) -> Iterator[Any]:
    """Yield the segments' packets. With a variable frame rate, one may start before the previous one has ended."""
    last: int | None = None
    for segment in segments:
        with av.open(f"file:{segment}") as file:
            for packet in file.demux(file.streams.video[0]):
                if packet.dts is not None:
                    packet.dts = last = packet.dts if last is None else max(packet.dts, last + 1)
                    yield packet


def _array_format(alpha: bool, bits: int) -> str:
    return ("rgba64le" if alpha else "rgb48le") if bits > 8 else "rgba" if alpha else "rgb24"


def _has_alpha(pixel_format: Any) -> bool:
    return any(component.is_alpha for component in pixel_format.components)


def _is_cover(stream: Any) -> bool:
    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def _is_restored(stream: Any) -> bool:
    """Return whether a data stream holds chapters or the time code, which are tags elsewhere."""
    chapters = len(stream.container.chapters())
    return stream.type == "data" and ("timecode" in stream.metadata or 0 < chapters == stream.frames)


def _name(stream: Any) -> str:
    codec, tags = stream.codec_context, stream.metadata
    return tags.get("filename") or (codec.name if codec else tags.get("handler_name", "unknown"))


def _can_store(container: str, stream: Any) -> bool:
    """Return whether a stream can be copied into a container."""
    if _is_cover(stream) and container in ("matroska", "mov"):
        return container == "matroska"  # as an attachment; libavformat accepts it for QuickTime, and drops it
    if container == "webm" and stream.type == "attachment":
        return False  # libavformat writes it, against the standard
    try:
        with av.open(io.BytesIO(), "w", format=container) as file:
            file.add_stream_from_template(stream, opaque=True)
            file.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _read_cover(path: Path, index: int) -> bytes:
    with av.open(f"file:{path}", metadata_errors="replace") as file:
        return bytes(next(file.demux(file.streams[index]), b""))
