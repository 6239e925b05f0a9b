"""Command-line interface: `srgan-hub {upscale,evaluate,convert,export,push,info,prepare}`."""

import io
import logging
import os
import re
import shutil
import signal
import sys
import traceback
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from tqdm import tqdm

from . import hub
from .backends.base import BACKENDS
from .batch import upscale_files
from .conversion import SOURCES, convert
from .devices import resolve_num_threads
from .export import export_onnx, export_openvino
from .images.decode import MAX_PIXELS, is_directory
from .images.encode import SaveOptions
from .images.tensors import Alpha, Wrap
from .model import SRGAN
from .model_card import get_metadata
from .plan import IMAGE_FORMATS
from .publish import push_folder
from .resize import TargetSize
from .version import PROGRAM, __version__

MODEL_HELP = "bundled model, local directory or Hub id"
SIZES = ("scale_factor", "width", "height", "longest_edge", "shortest_edge")
UPSCALER_OPTIONS = ("detail", "dtype", "device", "strip_height", "backend")
SAVE_OPTIONS = ("quality", "bit_depth", "strip_metadata", "overwrite", "codec", "crf", "background")
# Flags of the parameters that errors of the library name.
FLAGS = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        *SIZES, *UPSCALER_OPTIONS, *SAVE_OPTIONS, "format", "value_range", "skip_existing", "max_pixels",
        "allow_truncated", "wrap", "alpha",
        "metrics", "jpeg", "degradation", "lr", "downsampling", "crop_border", "tag", "private",
    )
} | {"scale_factor": "--scale", "models": "--model", "repo_id": "ORG/NAME"}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Return 0, 1 if some of several images failed, or 2 if an argument or the only image is invalid."""
    for name in ("stdin", "stdout", "stderr"):  # A closed one is None, and the next file would get its descriptor.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115
    options = vars(build_parser().parse_args(argv))
    run, threads = options.pop("run"), options.pop("threads", None)
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.getLogger(__package__).addHandler(handler)
    # Raise instead of dying, so temporary files are deleted.
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if threads is not None and threads < 1:
            raise ValueError(f"--threads must be at least 1, got {threads}.")
        torch.set_num_threads(resolve_num_threads(threads, torch.device("cpu")))
        return run(**options) or 0
    except (ValueError, OSError) as error:
        _print_error(error)
        return 2
    except KeyboardInterrupt:
        _print_error("interrupted")
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
        logging.getLogger(__package__).removeHandler(handler)


def build_parser() -> ArgumentParser:
    """Build the parser. Its namespace holds the function of the command, `run`, and that function's arguments."""
    parser = ArgumentParser(prog=PROGRAM, description="SRGAN image super-resolution.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add_arguments, run, summary in (
        (_add_upscale_arguments, run_upscale, "Upscale images, animations, videos and multi-page TIFFs"),
        (_add_evaluate_arguments, run_evaluate, "Score models on a folder of ground-truth images"),
        (_add_convert_arguments, run_convert, "Convert a checkpoint of another project"),
        (_add_export_arguments, run_export, "Export a model to ONNX or OpenVINO"),
        (_add_push_arguments, run_push, "Push a model to the Hub"),
        (_add_info_arguments, run_info, "Show a model's architecture, origin and scores, and verify its weights"),
        (_add_prepare_arguments, run_prepare, "Decode training images once, into shards"),
    ):
        name = run.__name__.removeprefix("run_")
        command = commands.add_parser(name, help=summary, description=f"{summary}.")
        command.set_defaults(run=run)
        add_arguments(command)
    return parser


class _Formatter(logging.Formatter):
    """Names flags in place of parameters, and standard streams in place of the temporary files behind them."""

    def format(self, record: logging.LogRecord) -> str:
        return _to_message(super().format(record))


def _to_message(text: str) -> str:
    text = re.sub(rf"'[^']*{PROGRAM}-\w+[/\\]std(in|out)\b[^']*'", r"standard \1put", text)
    return re.sub(r"`(\w+)`", lambda match: FLAGS.get(match[1], match[0]), text)


def _print_error(error: Exception | str) -> None:
    with suppress(OSError):  # as of a full disk: the files matter more
        print(f"{PROGRAM}: {_to_message(str(error))}", file=sys.stderr, flush=True)


class ProgressBar:
    """A tqdm bar that is called with (done, total); hidden unless stderr is a terminal."""

    def __init__(self, **options: Any) -> None:
        self._bar = tqdm(disable=None, leave=False, **options)

    def __call__(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


def _add_flag(command: Any, *names: str, help: str, default: bool = False) -> None:
    command.add_argument(*names, action=BooleanOptionalAction, default=default, help=help)


def _add_inference_arguments(command: ArgumentParser, *, dtype: str, backend: str) -> None:
    add = command.add_argument
    native = "auto (bfloat16 for 8-bit images where the hardware has it, else float32)"
    add("--dtype", default=dtype, help=f"{native}, float32, bfloat16 or float16 (default: {dtype})")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    faster = "auto: openvino where it is installed and faster"
    add("--backend", choices=BACKENDS, default=backend, help=f"{faster}, else torch (default: {backend})")
    add("--threads", type=int, help="CPU threads (default: chosen by PyTorch)")


def _add_upscale_arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="image files or directories of them; - is stdin")
    output = "file, - for stdout, or directory if it exists, ends in a slash or there are several inputs"
    add("--output", metavar="PATH", help=f"{output} (default: NAME_x4.png next to each input)")
    model = f"{MODEL_HELP}; bundled: {', '.join(hub.bundled_models())} (default: {hub.DEFAULT_MODEL})"
    add("--model", default=hub.DEFAULT_MODEL, help=model)
    models = f"{hub.FIDELITY_MODEL} (0, smooth) and --model (1, sharp)"
    related = f"which must be {hub.DEFAULT_MODEL} or fine-tuned from these two"
    add("--detail", type=float, metavar="0..1", help=f"interpolate between {models}, {related} (default: 1)")
    size = command.add_argument_group("output size", "Default, and maximum: the model's scale.")
    size.add_argument("--scale", dest="scale_factor", type=int, choices=(2, 3, 4), help="scale factor")
    for name in SIZES[1:]:
        flag, edge = name.replace("_", "-"), name.replace("_", " ")
        size.add_argument(f"--{flag}", type=int, metavar="PIXELS", help=f"{edge} of the output")
    add("--bit-depth", type=int, choices=(8, 16), help="bits per channel (default: as in the input)")
    value_range = "black and white of a floating-point, signed or 32-bit TIFF (default: its range)"
    wrap = "axes along which the image repeats: x for a 360 degree panorama, xy for a texture that tiles"
    add("--wrap", choices=get_args(Wrap), help=wrap)
    alpha = "opacity, or data that leaves the colors alone: independent (default: opacity)"
    add("--alpha", choices=get_args(Alpha), default="opacity", help=alpha)
    add("--value-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help=value_range)
    add("--format", choices=IMAGE_FORMATS, help="format of single images (default: png, or the suffix of --output)")
    background = "color behind transparent images in JPEG and BMP, such as white or #ffffff"
    add("--background", metavar="COLOR", help=background)
    add("--quality", type=int, metavar="1..100", help="default: JPEG 95, AVIF 90, WebP lossless")
    metadata = command.add_mutually_exclusive_group()
    strip = partial(metadata.add_argument, dest="strip_metadata", action="store_const")
    strip("--strip-metadata", const="all", help="remove all metadata except the color profile")
    strip("--strip-gps", const="gps", help="remove only the location, and maker notes")
    add("--codec", help="video encoder: libx264, libx265, libvpx-vp9 or another one of PyAV")
    add("--crf", type=int, help="constant rate factor of a video; lower is better")
    _add_flag(command, "--software-tag", default=True, help="name program, model and scale in the metadata")
    _add_inference_arguments(command, dtype="auto", backend="auto")
    add("--strip-height", type=int, metavar="ROWS", help="input rows per pass (default: by image width)")
    add("--max-pixels", type=int, default=MAX_PIXELS, help=f"reject larger inputs (default: {MAX_PIXELS})")
    _add_flag(command, "--allow-truncated", help="upscale what is there of images whose files are cut off")
    existing = command.add_mutually_exclusive_group()
    _add_flag(existing, "--overwrite", help="replace existing outputs")
    skip = "skip existing outputs; partly written videos and large TIFFs are always resumed"
    _add_flag(existing, "--skip-existing", "--resume", help=skip)
    _add_flag(command, "--debug", help="show tracebacks")


def run_upscale(
    inputs: list[Path], output: str | None, model: str, software_tag: bool, debug: bool, **options: Any
) -> int:
    """Upscale images; print the path of each output, or the only output itself."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # File names may have characters that its encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    size = TargetSize(**{name: options.pop(name) for name in SIZES})
    shard = _init_process_group()
    upscaler = SRGAN.from_pretrained(model).upscaler(**{name: options.pop(name) for name in UPSCALER_OPTIONS})
    software = f"{PROGRAM} {__version__}, {Path(model).name}, {size.suffix(upscaler.scale)}" if software_tag else None
    save_options = SaveOptions(software=software, **{name: options.pop(name) for name in SAVE_OPTIONS})
    images = failures = unprinted = 0
    with _replace_streams(inputs, output, options["format"]) as (paths, target, prints_paths):
        results = upscale_files(
            upscaler,
            paths,
            target,
            size=size,
            options=save_options,
            progress=lambda source: ProgressBar(desc=source.name, unit="row"),
            shard=shard,
            **options,
        )
        for result in results:
            images += 1
            if result.error is None:
                unprinted += prints_paths and not _print_path(result.target)
                continue
            failures += 1
            _print_error(result.error)
            if debug:
                with suppress(OSError):
                    traceback.print_exception(result.error)
    if torch.distributed.is_initialized():  # Launchers end all processes as soon as one exits with an error.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    if failures and len(inputs) == 1 and not is_directory(inputs[0]):
        return 2
    if failures:
        _print_error(f"{failures} of {images} images failed")
    return 1 if failures or unprinted else 0


@contextmanager
def _replace_streams(
    inputs: list[Path], output: str | None, format: str | None
) -> Iterator[tuple[list[Path], str | None, bool]]:
    """Replace - by temporary files, of which the output is written to stdout at the end.

    Yields:
        Inputs, output, and whether the paths of outputs should be printed.
    """
    stdin = Path("-")
    to_stdout = output == "-" or (output is None and inputs == [stdin])
    if not to_stdout and stdin not in inputs:
        yield inputs, output, True
        return
    if to_stdout and (len(inputs) > 1 or is_directory(inputs[0])):
        raise ValueError("--output - takes a single image, got several; name a directory.")
    if to_stdout and sys.stdout.isatty():
        raise ValueError("The output is a terminal; redirect it, or name a file with --output.")
    if stdin in inputs and output is None and not to_stdout:
        raise ValueError("- among several inputs has no directory for its output; pass --output.")
    if torch.distributed.is_initialized():
        raise ValueError("- cannot be shared by the processes of a launcher; name files.")
    with TemporaryDirectory(prefix=f"{PROGRAM}-") as directory:
        spooled, target = Path(directory, "stdin"), output
        if stdin in inputs:
            with spooled.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        if to_stdout:
            target = f"{directory}/stdout.{format or 'png'}"
        yield [spooled if path == stdin else path for path in inputs], target, not to_stdout
        if to_stdout and Path(str(target)).exists():
            try:
                with Path(str(target)).open("rb") as file, open(sys.stdout.fileno(), "wb", closefd=False) as stdout:
                    shutil.copyfileobj(file, stdout)
            except OSError as error:
                raise OSError(f"cannot write the image to standard output: {error.strerror}") from error


def _print_path(path: Path) -> bool:
    """Print a path, and return whether that was possible; the first failure is reported."""
    try:
        print(f"{path}\n", end="", flush=True)  # in one write: the processes of a launcher share stdout
    except OSError as error:
        _print_error(f"cannot print the paths of outputs: {error.strerror}")
        with Path(os.devnull).open("w") as null:  # where the rest goes
            os.dup2(null.fileno(), sys.stdout.fileno())
        return False
    return True


def _init_process_group() -> tuple[int, int]:
    """Join the other processes of a launcher, if any. Return rank and world size."""
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size == 1:
        return 0, 1
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("gloo", timeout=timedelta(days=30))  # The first one to finish waits this long.
    return torch.distributed.get_rank(), world_size


def _add_evaluate_arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    add("--data", required=True, type=Path, metavar="HR_DIR", help="ground-truth images")
    add("--lr", type=Path, metavar="LR_DIR", help="LR images, NAME or NAMEx4 (default: downscaled ground truth)")
    add("--model", action="append", default=[], dest="models", metavar="MODEL", help=f"{MODEL_HELP}; repeatable")
    add("--downsampling", choices=("matlab", "pillow"), default="matlab", help="bicubic for LR (default: matlab)")
    add("--jpeg", type=int, metavar="QUALITY", help="compress the LR images as JPEG first")
    add("--degradation", choices=("gaussian", "real-world"), help="degrade as in training, with a fixed seed")
    add("--crop-border", type=int, metavar="PIXELS", help="border to ignore in PSNR and SSIM (default: scale)")
    add("--metrics", nargs="+", metavar="NAME", help="metrics to compute (default: all available)")
    add("--json", type=Path, metavar="FILE", help="write the full report, with scores per image")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    add("--contact-sheets", type=Path, metavar="DIR", help="write side-by-side comparison images")
    add("--card", type=Path, metavar="DIR", help="add the scores to the card of the model in DIR")
    _add_inference_arguments(command, dtype="float32", backend="torch")


def run_evaluate(json: Path | None, markdown: Path | None, card: Path | None, **options: Any) -> None:
    """Score models; print the tables."""
    from .evaluate import evaluate, write_to_card  # Imports libraries that other commands do not need.

    with closing(ProgressBar(unit="image")) as bar:
        report = evaluate(**options, progress=bar)
    if json:
        json.write_text(report.to_json(), encoding="utf-8")
    if markdown:
        markdown.write_text(report.to_markdown(), encoding="utf-8")
    if card:
        write_to_card(card, [report])
    print(report.to_markdown(), end="")


def _add_convert_arguments(command: ArgumentParser) -> None:
    command.add_argument("source", type=Path, metavar="CHECKPOINT", help="checkpoint file")
    command.add_argument("destination", type=Path, metavar="DIR", help="model directory to create")
    command.add_argument("--from", dest="origin", choices=SOURCES, help="its project (default: detected)")


def run_convert(source: Path, destination: Path, origin: str | None) -> None:
    """Convert a checkpoint; print the path of the model directory."""
    convert(source, destination, origin=origin)
    print(destination)


def _add_export_arguments(command: ArgumentParser) -> None:
    command.add_argument("model", help=MODEL_HELP)
    command.add_argument("target", type=Path, metavar="FILE", help="OUT.onnx; with --openvino, OUT.xml")
    _add_flag(command, "--streaming", help="export one streaming step, with the cache as inputs and outputs")
    _add_flag(command, "--openvino", help="write OpenVINO files instead of ONNX")


def run_export(model: str, target: Path, streaming: bool, openvino: bool) -> None:
    """Export a model; print the path of the file."""
    license = get_metadata(hub.model_info(model).card, "license")
    loaded = SRGAN.from_pretrained(model)
    if openvino:
        print(export_openvino(loaded, target, streaming=streaming))
    else:
        print(export_onnx(loaded, target, streaming=streaming, name=model, license=license))


def _add_push_arguments(command: ArgumentParser) -> None:
    command.add_argument("folder", metavar="MODEL_DIR", help="directory from training or convert, or a bundled model")
    command.add_argument("repo_id", metavar="ORG/NAME", help="Hub repository; created if it does not exist")
    _add_flag(command, "--private", help="create a private repository")
    command.add_argument("--revision", help="branch to push to (default: main)")
    command.add_argument("--tag", help="tag this commit; load it with revision=TAG")
    _add_flag(command, "--overwrite-card", help="replace the model card on the Hub")
    _add_flag(command, "--endpoint", help="add handler.py and requirements.txt for Inference Endpoints")


def run_push(folder: str, repo_id: str, **options: Any) -> None:
    """Push a model; print the URL of the commit."""
    bundled = folder in hub.bundled_models() and not Path(folder).is_dir()
    print(push_folder(hub.bundled_model_path(folder) if bundled else Path(folder), repo_id, **options))


def _add_info_arguments(command: ArgumentParser) -> None:
    command.add_argument("model", help=MODEL_HELP)
    command.add_argument("--revision", help="branch, tag or commit on the Hub")


def run_info(model: str, revision: str | None) -> None:
    """Print a model's architecture, origin and scores."""
    print(hub.model_info(model, revision=revision))


def _add_prepare_arguments(command: ArgumentParser) -> None:
    source = "image directory, or div2k to download DIV2K (4 GB)"
    command.add_argument("--data", required=True, metavar="DIR_OR_div2k", help=source)
    command.add_argument("--output", required=True, type=Path, metavar="DIR", help="directory for the shards")
    command.add_argument("--div2k-url", metavar="URL", help="address of a mirror of DIV2K's archives")


def run_prepare(data: str, output: Path, div2k_url: str | None) -> None:
    """Build the shards; print the path of their directory."""
    from .training.dataset import build_shards
    from .training.div2k import find_split, prepare_div2k

    build: Callable[..., Path] = partial(build_shards, find_split(Path(data), "train"))
    if data == "div2k":
        build = partial(prepare_div2k, url=div2k_url)
    with closing(ProgressBar(unit="image")) as bar:
        directory = build(output, progress=bar)
    print(directory)
