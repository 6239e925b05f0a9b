"""The command line: `python -m srgan_hub COMMAND`, also installed as `srgan-hub`."""

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch
from PIL import Image
from tqdm import tqdm

from . import hub
from .backends.base import BACKENDS
from .batch import upscale_files
from .conversion import SOURCES, convert
from .devices import resolve_num_threads
from .export import export_onnx, export_openvino
from .images.decode import MAX_PIXELS, is_folder
from .model import SRGAN
from .target_size import TargetSize
from .upscaler import DTYPES, ProgressCallback
from .version import __version__

PROGRAM = "srgan-hub"
MODEL = "bundled name, folder or Hub id"
SIZES = ("scale_factor", "width", "height", "longest_edge", "shortest_edge")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Return 0, 1 if some images of several failed, or 2 for a mistake in what was asked for."""
    options = vars(parse_args(argv))
    with contextlib.redirect_stderr(_stderr_apart()):
        return _run(**options)


def _run(run: Callable[..., int | None], threads: int | None = None, **options: Any) -> int:
    handler = logging.StreamHandler()
    logging.getLogger(__package__).addHandler(handler)
    # As an exception, so that half-written files are deleted.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if threads is not None and threads < 1:
            raise ValueError(f"Expected --threads of at least 1, got {threads}.")
        torch.set_num_threads(resolve_num_threads(threads, torch.device("cpu")))
        return run(**options) or 0
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped", file=sys.stderr)
        return 130
    finally:
        logging.getLogger(__package__).removeHandler(handler)


def _stderr_apart() -> TextIO:
    """Return Python's stderr on a handle of its own, where `in_one_line` does not catch what we write."""
    try:
        if sys.stderr.fileno() == 2:
            return os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1)
    except (OSError, AttributeError):  # no stderr, or one that is no file
        pass
    return sys.stderr


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line into the function that runs the command, `run`, and its arguments."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="SRGAN super-resolution.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[..., int | None], summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=f"{summary}.")
        command.set_defaults(run=run)
        return command

    upscale = add("upscale", run_upscale, "Upscale images")
    upscale.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="image files, or folders of them")
    upscale.add_argument(
        "--output",
        metavar="FILE_OR_FOLDER",
        help="where the result goes; a folder if it exists, ends in a slash, or there are several inputs or a folder "
        "(default: NAME_x4.png beside each input)",
    )
    upscale.add_argument(
        "--model",
        default=hub.DEFAULT_MODEL,
        help=f"{MODEL}; bundled are {', '.join(hub.list_bundled_models())} (default: {hub.DEFAULT_MODEL})",
    )
    upscale.add_argument(
        "--detail",
        type=float,
        metavar="0..1",
        help=f"from faithful, {hub.FIDELITY_MODEL}, to --model, {hub.DEFAULT_MODEL} "
        "or one fine-tuned from this pair (default: 1)",
    )
    size = upscale.add_argument_group("size of the result", "The model's scale by default, and never larger.")
    size.add_argument("--scale", dest="scale_factor", type=int, choices=(2, 3, 4), help="times as large")
    for name in SIZES[1:]:
        side = name.replace("_", " ")
        size.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="PIXELS", help=f"its {side} in pixels")
    upscale.add_argument(
        "--bit-depth", type=int, choices=(8, 16), help="bits per channel (default: those of the image)"
    )
    upscale.add_argument(
        "--value-range",
        dest="value_range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="what black and white mean in a TIFF of floats (default: its lowest and highest number)",
    )
    upscale.add_argument("--quality", type=int, metavar="1..100", help="of JPEG and WebP (default: 95; WebP lossless)")
    metadata = upscale.add_mutually_exclusive_group()
    metadata.add_argument(
        "--strip-metadata", action="store_const", const="all", help="drop all metadata but the color profile"
    )
    metadata.add_argument(
        "--strip-gps", dest="strip_metadata", action="store_const", const="gps", help="drop only the place"
    )
    upscale.add_argument("--codec", help="of a video: libx264, libx265, libvpx-vp9 or another that PyAV has")
    upscale.add_argument("--crf", type=int, help="of a video: its constant rate factor, smaller is better")
    upscale.add_argument(
        "--no-software-tag",
        dest="software_tag",
        action="store_false",
        help="do not name program, model and scale in the metadata",
    )
    _add_hardware(upscale, dtype="auto", backend="auto")
    upscale.add_argument("--strip-height", type=int, metavar="ROWS", help="rows that go through the network at once")
    upscale.add_argument("--max-pixels", type=int, default=MAX_PIXELS, help=f"largest input (default: {MAX_PIXELS})")
    existing = upscale.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    existing.add_argument(
        "--skip-existing",
        "--resume",
        action="store_true",
        help="pass over outputs that exist, as after a stop; what a killed run had done of a video or a large TIFF is "
        "used in any case",
    )
    upscale.add_argument("--debug", action="store_true", help="show the full traceback of what goes wrong")

    converting = add("convert", run_convert, "Convert another project's weights")
    converting.add_argument("source", type=Path, metavar="SRC", help="the checkpoint")
    converting.add_argument("destination", type=Path, metavar="DEST", help="folder for the model")
    converting.add_argument(
        "--from", dest="origin", choices=SOURCES, help="the project that it must come from (default: found out)"
    )

    evaluate = add("evaluate", run_evaluate, "Score models on images")
    evaluate.add_argument("--data", required=True, type=Path, metavar="HR_FOLDER", help="ground truth")
    evaluate.add_argument("--lr", type=Path, metavar="LR_FOLDER", help="the inputs, NAME or NAMEx4 (default: made)")
    evaluate.add_argument(
        "--model", action="append", default=[], dest="models", metavar="MODEL", help=f"{MODEL}; once for each"
    )
    evaluate.add_argument(
        "--downsampling", choices=("matlab", "pillow"), default="matlab", help="how inputs are made (default: matlab)"
    )
    evaluate.add_argument("--jpeg", type=int, metavar="QUALITY", help="save the inputs as JPEG first")
    evaluate.add_argument(
        "--degradation", choices=("gaussian", "real-world"), help="make the inputs as training does, with a fixed seed"
    )
    evaluate.add_argument(
        "--crop-border", type=int, metavar="PIXELS", help="border left out of PSNR, SSIM (default: scale)"
    )
    evaluate.add_argument("--metrics", nargs="+", metavar="NAME", help="which scores (default: all that are at hand)")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write everything, per image too")
    evaluate.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    evaluate.add_argument("--contact-sheets", type=Path, metavar="FOLDER", help="write contact sheets")
    evaluate.add_argument("--card", type=Path, metavar="FOLDER", help="write the scores into this model's card too")
    _add_hardware(evaluate, dtype="fp32", backend="torch")

    push = add("push", run_push, "Publish a model on the Hub")
    push.add_argument("folder", metavar="FOLDER", help="what training or convert wrote, or a bundled name")
    push.add_argument("repo_id", metavar="ORG/NAME", help="where it goes; created if it is missing")
    push.add_argument("--private", action="store_true", help="create it as a private repository")
    push.add_argument("--revision", help="branch to push to (default: main)")
    push.add_argument("--tag", help="name this commit, so that it can be loaded by revision=TAG")
    push.add_argument("--overwrite-card", action="store_true", help="replace the card that is on the Hub")
    push.add_argument("--endpoint", action="store_true", help="add handler.py and requirements.txt for Endpoints")

    exporting = add("export", run_export, "Write a model as ONNX")
    exporting.add_argument("model", help=MODEL)
    exporting.add_argument("target", type=Path, metavar="OUT.onnx", help="the file; with --openvino, OUT.xml")
    exporting.add_argument(
        "--streaming", action="store_true", help="one step of the stream, with what it keeps as inputs and outputs"
    )
    exporting.add_argument("--openvino", action="store_true", help="write it as OpenVINO's files")

    info = add("info", run_info, "Say what is known of a model")
    info.add_argument("model", help=MODEL)
    info.add_argument("--revision", help="branch, tag or commit on the Hub")

    prepare = add("prepare", run_prepare, "Decode images once, for training")
    prepare.add_argument(
        "--data", required=True, metavar="FOLDER_OR_div2k", help="images; div2k downloads DIV2K (4 GB)"
    )
    prepare.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="where the shards go")
    return parser.parse_args(argv)


def _add_hardware(command: argparse.ArgumentParser, *, dtype: str, backend: str) -> None:
    command.add_argument(
        "--dtype",
        choices=("auto", *DTYPES),
        default=dtype,
        help=f"auto: bf16 for 8-bit images where the hardware has it, otherwise fp32 (default: {dtype})",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    command.add_argument(
        "--backend",
        choices=BACKENDS,
        default=backend,
        help="what runs the network; auto: openvino for small images and in bf16 on x86 CPUs where it is "
        f"installed, otherwise torch (default: {backend})",
    )
    command.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")


def _move(bar: Any, done: int, total: int) -> None:
    """Show progress on a bar of tqdm's."""
    bar.total = total
    bar.update(done - bar.n)


def _show_rows(source: Path) -> ProgressCallback:
    """Make a bar for an image's rows, which goes when they are done."""
    bar = tqdm(desc=source.name, unit="row", disable=None, leave=False)

    def update(done: int, total: int) -> None:
        _move(bar, done, total)
        if done == total:
            bar.close()

    return update


def run_upscale(
    inputs: list[Path], output: str | None, model: str, max_pixels: int, software_tag: bool, debug: bool, **options: Any
) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file may have a name that it cannot encode
        sys.stdout.reconfigure(errors="backslashreplace")
    size = TargetSize(**{name: options.pop(name) for name in SIZES})
    ranks = _join_others()
    upscaler = SRGAN.from_pretrained(model).upscaler(
        **{name: options.pop(name) for name in ("detail", "dtype", "device", "strip_height", "backend")}
    )
    software = f"{PROGRAM} {__version__}, {Path(model).name}, {size.suffix(upscaler.scale)}" if software_tag else None
    results = upscale_files(
        upscaler,
        inputs,
        output,
        size=size,
        software=software,
        max_pixels=max_pixels,
        progress=_show_rows,
        shard=ranks,
        **options,
    )
    # Pillow checks also what it finds while it decodes, such as an image within an icon.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    images = failures = 0
    try:
        for _, target, problem in results:
            images += 1
            if problem is None:
                print(target, flush=True)
                continue
            failures += 1
            print(f"{PROGRAM}: {problem}", file=sys.stderr, flush=True)
            if debug:
                traceback.print_exception(problem)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if torch.distributed.is_initialized():  # launchers end all processes as soon as one ends with an error
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    if failures and len(inputs) == 1 and not is_folder(inputs[0]):
        return 2
    if failures:
        print(f"{PROGRAM}: {failures} of {images} images failed", file=sys.stderr)
    return 1 if failures else 0


def _join_others() -> tuple[int, int]:
    """Meet the other processes if a launcher has started several. Return this one's rank and their number."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        return 0, 1
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("gloo", timeout=timedelta(days=30))  # for which the first one done may wait
    return torch.distributed.get_rank(), count


def run_convert(source: Path, destination: Path, origin: str | None) -> None:
    convert(source, destination, origin=origin)
    print(destination)


def run_evaluate(json: Path | None, markdown: Path | None, card: Path | None, **options: Any) -> None:
    # These load more libraries than the other commands need, as those of `prepare` do.
    from .evaluate import evaluate, write_to_card

    with tqdm(unit="image", disable=None, leave=False) as bar:
        report = evaluate(**options, progress=partial(_move, bar))
    if json:
        json.write_text(report.to_json(), encoding="utf-8")
    if markdown:
        markdown.write_text(report.to_markdown(), encoding="utf-8")
    if card:
        write_to_card(card, [report])
    print(report.to_markdown(), end="")


def run_push(folder: str, repo_id: str, **options: Any) -> None:
    bundled = folder in hub.list_bundled_models() and not Path(folder).is_dir()
    print(hub.push_folder(hub.bundled_model_path(folder) if bundled else Path(folder), repo_id, **options))


def run_export(model: str, target: Path, streaming: bool, openvino: bool) -> None:
    license = hub.model_info(model).value("license") or None
    loaded = SRGAN.from_pretrained(model)
    if openvino:
        print(export_openvino(loaded, target, streaming=streaming))
    else:
        print(export_onnx(loaded, target, streaming=streaming, name=model, license=license))


def run_info(model: str, revision: str | None) -> None:
    print(hub.model_info(model, revision=revision))


def run_prepare(data: str, output: Path) -> None:
    from .training.dataset import build_shards
    from .training.div2k import prepare_div2k

    with tqdm(disable=None, unit="image") as bar:
        build = prepare_div2k if data == "div2k" else partial(build_shards, Path(data))
        folder = build(output, progress=partial(_move, bar))
    print(folder)
