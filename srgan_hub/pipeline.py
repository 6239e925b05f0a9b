"""Many picture files: each in, the same out, larger."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .pictures import files
from .pictures.files import PictureError
from .upscaler import Progress, Upscaler


def plan_outputs(inputs: Sequence[Path], output: str | None, *, scale: int) -> list[Path]:
    """Say where each input's result goes.

    Args:
        inputs: picture files.
        output: a file or a folder. A folder is meant when it exists, ends in a slash, or there are several inputs. None
            puts each result beside its input.
        scale: for the name: NAME_x4.png.
    """
    if output is not None and len(inputs) == 1 and not output.endswith(("/", "\\")) and not Path(output).is_dir():
        return [Path(output)]
    names = [f"{path.stem}_x{scale}.png" for path in inputs]
    return [(path.parent if output is None else Path(output)) / name for path, name in zip(inputs, names, strict=True)]


def upscale_files(
    upscaler: Upscaler,
    inputs: Sequence[Path],
    output: str | None = None,
    *,
    overwrite: bool = False,
    max_pixels: int | None = files.MAX_PIXELS,
    progress: Callable[[Path], Progress] | None = None,
) -> Iterator[tuple[Path, Path, PictureError | None]]:
    """Upscale picture files one after the other; one that fails does not stop the others.

    Args:
        upscaler: from ``SRGAN.upscaler``.
        inputs: picture files.
        output: as in ``plan_outputs``.
        overwrite: replace outputs that exist.
        max_pixels: the largest input, in pixels.
        progress: called with an input, gives its ``Upscaler.upscale`` progress callback.

    Yields:
        Input, output, and what went wrong or None.
    """
    outputs = plan_outputs(inputs, output, scale=upscaler.scale)
    if output is not None and outputs != [Path(output)]:
        Path(output).mkdir(parents=True, exist_ok=True)
    taken: set[Path] = set()
    for source, target in zip(inputs, outputs, strict=True):
        problem = None
        try:
            if target in taken:
                raise PictureError(f"{source}: another input has its result in {target}; rename one of them")
            taken.add(target)
            _upscale_file(upscaler, source, target, overwrite, max_pixels, progress)
        except PictureError as error:
            problem = error
        yield source, target, problem


def _upscale_file(
    upscaler: Upscaler,
    source: Path,
    target: Path,
    overwrite: bool,
    max_pixels: int | None,
    progress: Callable[[Path], Progress] | None,
) -> None:
    with files.open_header(source, max_pixels=max_pixels) as header:
        width, height = header.width * upscaler.scale, header.height * upscaler.scale
        files.check_output(target, width=width, height=height, alpha=header.has_transparency_data)
    if target.exists() and not overwrite:
        raise PictureError(f"{target} exists already; say --overwrite to replace it")
    image = files.read(source, max_pixels=max_pixels)
    files.write(upscaler.upscale(image, progress=progress(source) if progress else None), target)
