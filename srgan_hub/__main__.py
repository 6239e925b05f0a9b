"""The command line: `python -m srgan_hub COMMAND`, also installed as `srgan-hub`."""

import argparse
import io
import logging
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .hub import DEFAULT, FAITHFUL, bundled_names
from .pictures.files import MAX_PIXELS

PROGRAM = "srgan-hub"
MODEL = "bundled name, folder or Hub id"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Return 0, 1 if some pictures of several failed, or 2 for a mistake in what was asked for."""
    arguments = parse_args(argv)
    handler = logging.StreamHandler()
    logging.getLogger(__package__).addHandler(handler)
    # As an exception, so that half-written files are deleted.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if getattr(arguments, "threads", None) is not None:
            _set_threads(arguments.threads)
        return arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped", file=sys.stderr)
        return 130
    finally:
        logging.getLogger(__package__).removeHandler(handler)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="SRGAN super-resolution.")
    parser.add_argument(
        "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="print the version and exit"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    upscale = commands.add_parser("upscale", help="enlarge pictures", description="Enlarge pictures.")
    upscale.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="picture files")
    upscale.add_argument(
        "--output",
        metavar="FILE_OR_FOLDER",
        help="where the result goes; a folder if it exists, ends in a slash, or there are several inputs "
        "(default: NAME_x4.png beside each input)",
    )
    upscale.add_argument(
        "--model",
        default=DEFAULT,
        help=f"{MODEL}; bundled are {', '.join(bundled_names())} (default: {DEFAULT})",
    )
    upscale.add_argument(
        "--detail",
        type=float,
        metavar="0..1",
        help=f"from faithful, {FAITHFUL}, to --model, {DEFAULT} or one fine-tuned from this pair (default: 1)",
    )
    size = upscale.add_argument_group("size of the result", "The model's scale by default, and never larger.")
    size.add_argument("--scale", type=int, choices=(2, 3, 4), help="times as large")
    for name in ("width", "height", "longest", "shortest"):
        side = f"{name} side" if name.endswith("est") else name
        size.add_argument(f"--{name}", type=int, metavar="PIXELS", help=f"its {side} in pixels")
    upscale.add_argument("--quality", type=int, metavar="1..100", help="of JPEG and WebP (default: 95; WebP lossless)")
    metadata = upscale.add_mutually_exclusive_group()
    metadata.add_argument("--strip", action="store_const", const="all", help="drop EXIF data and resolution")
    metadata.add_argument("--strip-gps", dest="strip", action="store_const", const="gps", help="drop only the place")
    _add_hardware(upscale, precision="auto")
    upscale.add_argument("--band", type=int, metavar="ROWS", help="rows that go through the network at once")
    upscale.add_argument("--max-pixels", type=int, default=MAX_PIXELS, help=f"largest input (default: {MAX_PIXELS})")
    existing = upscale.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    existing.add_argument("--skip-existing", action="store_true", help="pass over outputs that exist, as after a stop")
    upscale.add_argument("--debug", action="store_true", help="show the full traceback of what goes wrong")
    upscale.set_defaults(run=run_upscale)

    convert = commands.add_parser(
        "convert", help="convert another project's weights", description="Convert another project's weights."
    )
    convert.add_argument("source", type=Path, metavar="SRC", help="the checkpoint")
    convert.add_argument("destination", type=Path, metavar="DEST", help="folder for the model")
    convert.add_argument(
        "--from",
        dest="origin",
        choices=("krasserm", "lornatang", "leftthomas"),
        help="the project that it must come from (default: found out)",
    )
    convert.set_defaults(run=run_convert)

    evaluate = commands.add_parser("evaluate", help="score models", description="Score models on pictures.")
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
        "--degradation", choices=("gaussian", "camera"), help="make the inputs as training does, with a fixed seed"
    )
    evaluate.add_argument("--shave", type=int, metavar="PIXELS", help="border left out of PSNR, SSIM (default: scale)")
    evaluate.add_argument("--metrics", nargs="+", metavar="NAME", help="which scores (default: all that are at hand)")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write everything, per picture too")
    evaluate.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    evaluate.add_argument("--pictures", type=Path, metavar="FOLDER", help="write contact sheets")
    evaluate.add_argument("--card", type=Path, metavar="FOLDER", help="write the scores into this model's card too")
    _add_hardware(evaluate, precision="fp32")
    evaluate.set_defaults(run=run_evaluate)

    push = commands.add_parser("push", help="publish a model on the Hub", description="Publish a model on the Hub.")
    push.add_argument("folder", metavar="FOLDER", help="what training or convert wrote, or a bundled name")
    push.add_argument("repo_id", metavar="ORG/NAME", help="where it goes; created if it is missing")
    push.add_argument("--private", action="store_true", help="create it as a private repository")
    push.add_argument("--revision", help="branch to push to (default: main)")
    push.add_argument("--tag", help="name this commit, so that it can be loaded by revision=TAG")
    push.add_argument("--overwrite-card", action="store_true", help="replace the card that is on the Hub")
    push.add_argument("--endpoint", action="store_true", help="add handler.py and requirements.txt for Endpoints")
    push.set_defaults(run=run_push)

    export = commands.add_parser("export", help="write a model as ONNX", description="Write a model as ONNX.")
    export.add_argument("model", help=MODEL)
    export.add_argument("target", type=Path, metavar="OUT.onnx", help="the file")
    export.set_defaults(run=run_export)

    info = commands.add_parser("info", help="say what is known of a model", description="Say what is known of a model.")
    info.add_argument("model", help=MODEL)
    info.add_argument("--revision", help="branch, tag or commit on the Hub")
    info.set_defaults(run=run_info)

    prepare = commands.add_parser(
        "prepare", help="make training data", description="Decode pictures once, for training."
    )
    prepare.add_argument(
        "--data", required=True, metavar="FOLDER_OR_div2k", help="pictures; div2k downloads DIV2K (4 GB)"
    )
    prepare.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="where the shards go")
    prepare.set_defaults(run=run_prepare)
    return parser.parse_args(argv)


def _add_hardware(command: argparse.ArgumentParser, *, precision: str) -> None:
    command.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default=precision,
        help=f"auto: bf16 for 8-bit pictures where the hardware has it, otherwise fp32 (default: {precision})",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    command.add_argument("--threads", type=int, help="processor threads (default: PyTorch's choice)")


def _set_threads(count: int) -> None:
    import torch

    if count < 1:
        raise ValueError(f"--threads must be at least 1, got {count}")
    torch.set_num_threads(count)


def _move(bar: Any, done: int, total: int) -> None:
    """Show progress on a bar of tqdm's."""
    bar.total = total
    bar.update(done - bar.n)


def run_upscale(arguments: argparse.Namespace) -> int:
    from PIL import Image
    from tqdm import tqdm

    from .model import SRGAN
    from .pictures.sizes import Size
    from .pipeline import upscale_files
    from .upscaler import Progress

    if isinstance(sys.stdout, io.TextIOWrapper):  # a file may have a name that it cannot encode
        sys.stdout.reconfigure(errors="backslashreplace")
    sides = {name: getattr(arguments, name) for name in ("width", "height", "longest", "shortest")}
    size = Size(times=arguments.scale, **sides)
    upscaler = SRGAN.from_pretrained(arguments.model).upscaler(
        detail=arguments.detail, precision=arguments.precision, device=arguments.device, band=arguments.band
    )

    def show(source: Path) -> Progress:
        bar = tqdm(desc=source.name, unit="row", disable=None, leave=False)

        def update(done: int, total: int) -> None:
            _move(bar, done, total)
            if done == total:
                bar.close()

        return update

    # Pillow checks also what it finds while it decodes, such as a picture within an icon.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, arguments.max_pixels
    failures = 0
    try:
        for _, target, problem in upscale_files(
            upscaler,
            arguments.inputs,
            arguments.output,
            size=size,
            quality=arguments.quality,
            strip=arguments.strip,
            overwrite=arguments.overwrite,
            skip_existing=arguments.skip_existing,
            max_pixels=arguments.max_pixels,
            progress=show,
        ):
            failures += problem is not None
            print(
                f"{PROGRAM}: {problem}" if problem else target, file=sys.stderr if problem else sys.stdout, flush=True
            )
            if problem and arguments.debug:
                traceback.print_exception(problem)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if len(arguments.inputs) == 1:
        return 2 if failures else 0
    if failures:
        print(f"{PROGRAM}: {failures} of {len(arguments.inputs)} pictures failed", file=sys.stderr)
    return 1 if failures else 0


def run_convert(arguments: argparse.Namespace) -> int:
    from .convert import convert

    convert(arguments.source, arguments.destination, origin=arguments.origin)
    print(arguments.destination)
    return 0


def run_evaluate(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from .evaluate import evaluate, write_to_card

    ours = ("run", "json", "markdown", "card", "threads")
    options = {name: value for name, value in vars(arguments).items() if name not in ours}
    with tqdm(unit="picture", disable=None, leave=False) as bar:
        report = evaluate(**options, progress=partial(_move, bar))
    for file, text in ((arguments.json, report.to_json()), (arguments.markdown, report.to_markdown())):
        if file:
            file.write_text(text, encoding="utf-8")
    if arguments.card:
        write_to_card(arguments.card, [report])
    print(report.to_markdown(), end="")
    return 0


def run_push(arguments: argparse.Namespace) -> int:
    from .hub import bundled, push

    bundled_name = arguments.folder in bundled_names() and not Path(arguments.folder).is_dir()
    url = push(
        bundled(arguments.folder) if bundled_name else Path(arguments.folder),
        arguments.repo_id,
        private=arguments.private,
        revision=arguments.revision,
        tag=arguments.tag,
        overwrite_card=arguments.overwrite_card,
        endpoint=arguments.endpoint,
    )
    print(url)
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    from .hub import info
    from .model import SRGAN
    from .onnx import export

    license = info(arguments.model).value("license") or None
    print(export(SRGAN.from_pretrained(arguments.model), arguments.target, name=arguments.model, license=license))
    return 0


def run_info(arguments: argparse.Namespace) -> int:
    from .hub import info

    print(info(arguments.model, revision=arguments.revision))
    return 0


def run_prepare(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from .training.dataset import prepare
    from .training.div2k import prepare_div2k

    bar = tqdm(disable=None, unit_scale=True)

    def show(what: str, done: int, total: int) -> None:
        bar.set_description(what, refresh=False)
        _move(bar, done, total)

    with bar:
        if arguments.data == "div2k":
            folder = prepare_div2k(arguments.output, progress=show)
        else:
            folder = prepare(Path(arguments.data), arguments.output, progress=show)
    print(folder)
    return 0


class _Version(argparse.Action):
    """Print the version, as argparse's own action does, but import it only then."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> None:
        from . import __version__

        print(f"{PROGRAM} {__version__}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
