"""The Gradio demo: upload a small picture, get it four times as large, compare, download. Run: python app.py"""

import functools
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.demo import page
from srgan_hub.pictures import files
from srgan_hub.upscaler import Upscaler

logger = logging.getLogger(__name__)

# What the page calls the models, and what SRGAN.from_pretrained takes: a bundled name, a folder or a Hub id.
MODELS = {
    "Photo SRGAN: crisp, JPEGs too": "srgan-x4-photo",
    "Photo SRResNet: faithful, JPEGs too": "srresnet-x4-photo",
    "Paper's SRGAN: clean pictures": "srgan-x4",
    "Paper's SRResNet: clean pictures": "srresnet-x4",
}
EXAMPLES = Path(files.__file__).parent.parent / "examples"
# A megapixel takes about half a minute on two processor cores.
MAX_PIXELS = 4_000_000
MAX_FILE_SIZE = "50mb"
# Browsers struggle with larger pictures in the comparison; the download is always whole.
SLIDER_SIDE = 2_048
# How many visitors may wait; each holds one of Gradio's forty threads.
LONGEST_LINE = 20

# Soft's own colours for small text have a contrast of less than 4.5. `set` forgets the background, so it is said again.
THEME = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"]).set(
    background_fill_primary="*neutral_50",
    block_label_text_color="*primary_700",
    block_title_text_color="*primary_700",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    checkbox_label_background_fill_selected="*primary_600",
)
LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css": page.CSS,
    "max_file_size": MAX_FILE_SIZE,
    "ssr_mode": False,
}


def create_demo(
    models: dict[str, str] | None = None, *, max_pixels: int = MAX_PIXELS, slider_side: int = SLIDER_SIDE
) -> gr.Blocks:
    """Build the demo.

    Args:
        models: label on the page -> bundled name, folder or Hub id. Each is loaded when it is first used.
        max_pixels: the largest picture that is accepted, in pixels.
        slider_side: the largest side of the pictures in the comparison.
    """
    models = models or MODELS
    labels = {name: label.split(":")[0] for label, name in models.items()}
    line = Line()

    @functools.cache
    def load(name: str) -> Upscaler:
        return SRGAN.from_pretrained(name).upscaler()

    def upscale(
        picture: dict[str, Any] | None, model: str, request: gr.Request
    ) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
        """Enlarge a picture: a file and a model's name in; pictures to compare, the result as PNG, the state out."""
        path = Path(picture["path"]) if picture else None
        try:
            if not path:
                raise ValueError("Choose a picture first: upload one or click an example.")
            if model not in labels:
                raise ValueError(f"The model {model!r} is not in the list of choices: {', '.join(labels)}.")
            with line.place(request.session_hash or "") as job:
                while ahead := line.ahead(job):
                    yield None, None, _job("queued", f"{path.name}: {ahead} ahead of you.", 0)
                for outputs in enlarge(path, model):
                    # The final state comes from here alone, so that no progress can come after it.
                    if job.stopped:
                        yield None, None, _job("cancelled", job.stopped)
                        return
                    yield outputs
        except Exception as error:
            text = _sentence(error, path)
            yield None, None, _job("failed", text)
            # The page shows the text already; this is for other clients.
            raise gr.Error(text, visible=False, print_exception=False) from error

    def enlarge(path: Path, model: str) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
        """Yield progress after each band, then the result."""
        started = time.perf_counter()
        doing = f"Enlarging {path.name} with {labels[model]}."
        yield None, None, _job("running", doing, 0)
        image, notes = _read(path, max_pixels)
        upscaler = load(model)
        bands: list[np.ndarray] = []
        for band in upscaler.stream(files.to_array(image)):
            bands.append(band)
            share = sum(map(len, bands)) / (image.height * upscaler.scale)
            yield gr.skip(), gr.skip(), _job("running", doing, share)
        result = files.to_image(np.concatenate(bands), like=image)
        seconds = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            download = Path(folder) / f"{path.stem}_x{upscaler.scale}.png"
            files.write(result, download)
            pair, size = _compare(image, result, Path(folder), slider_side)
            text = (
                f"{path.name} with {labels[model]}: {image.width} x {image.height} → {result.width} x {result.height} "
                f"pixels in {seconds:.1f} s."
            )
            if size != result.size:
                text += f" The comparison shows it at {size[0]} x {size[1]}, the download is full size."
            yield (
                [_file(each, path.name) for each in pair],
                _file(download, download.name),
                _job("done", f"{text} {notes}"),
            )

    def choose(picture: dict[str, Any] | None, request: gr.Request) -> tuple[Any, None, None, dict[str, Any]]:
        """Check a new picture, and stop the run and clear the result of the one before."""
        stopped = line.stop(request.session_hash or "", "Stopped: another picture was chosen.")
        before = "The run before was stopped. " if stopped else ""
        path = Path(picture["path"]) if picture else None
        if not path:
            return None, None, None, _job("idle", f"{before}Choose a picture.")
        try:
            image, notes = _read(path, max_pixels)
        except Exception as error:
            return None, None, None, _job("failed", before + _sentence(error, path))
        text = f"{before}{path.name}: {image.width} x {image.height} pixels. {notes}"
        return str(path), None, None, _job("chosen", text)

    def choose_always(picture: dict[str, Any] | None) -> Callable[[gr.Request], tuple[Any, None, None, dict[str, Any]]]:
        def choose_this(request: gr.Request) -> tuple[Any, None, None, dict[str, Any]]:
            return choose(picture, request)

        return choose_this

    def cancel(request: gr.Request) -> None:
        line.stop(request.session_hash or "", "Cancelled.")

    def change_model(request: gr.Request) -> None:
        line.stop(request.session_hash or "", "Stopped: another model was chosen.")

    with Demo(title="SRGAN upscaler", delete_cache=(3600, 3600)) as demo:
        gr.Markdown(
            "# Small picture in, four times larger out\n"
            "SRGAN redraws the detail that a small picture lost. The whole picture goes through the network in "
            "full-width bands, so there are no seams. The new detail is plausible, not evidence."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                picture = gr.Image(
                    label="Your picture",
                    alt_text="The picture that you chose",
                    sources=["upload", "clipboard"],
                    buttons=[],
                    height=260,
                    elem_id="picture",
                )
                model = gr.Radio(
                    list(models.items()), value=next(iter(models.values())), label="Model", elem_id="model"
                )
                job = gr.HTML(
                    _job("idle", "Choose a picture."), html_template=page.JOB, js_on_load=page.JOB_SCRIPT, elem_id="job"
                )
            with gr.Column(scale=3, min_width=300):
                comparison = gr.HTML(
                    None, html_template=page.COMPARISON, js_on_load=page.COMPARISON_SCRIPT, elem_id="comparison"
                )
                download = gr.HTML(None, html_template=page.DOWNLOAD, js_on_load=None, elem_id="download")
        gr.Markdown("Or try one of these:")
        with gr.Row(elem_id="examples"):
            examples = [gr.Button(path.stem.capitalize(), icon=path) for path in _examples()]
        gr.Markdown(
            f"PNG, JPEG, WebP, BMP or TIFF, up to {max_pixels / 1e6:.3g} megapixels and {MAX_FILE_SIZE[:-2]} MB. "
            "Animations are not supported. Pictures are deleted after an hour or two."
        )

        shown = [comparison, download, job]
        quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        # The line decides who waits, not Gradio's queue, since the line can tell a visitor's place.
        waiting: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "multiple", "concurrency_limit": None}
        # Without Gradio's preprocessing, which would decode the picture before the limits are checked, and drop alpha.
        job.submit(upscale, [picture, model], shown, api_name="upscale", preprocess=False, **waiting)
        job.stop(cancel, **quiet)
        model.input(change_model, **quiet)
        picture.upload(choose, picture, [picture, *shown], preprocess=False, **quiet)
        picture.clear(choose_always(None), None, [picture, *shown], **quiet)
        for button in examples:
            assert button.icon
            button.keep_in_cache.add(button.icon["path"])  # Gradio's copy, which is an upload like any other
            button.click(choose_always(button.icon), None, [picture, *shown], **quiet)
    return demo


class Demo(gr.Blocks):
    """Blocks that take no picture but what was uploaded to them."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Replace every other path or address by None before Gradio follows it."""
        inputs = [
            None if isinstance(block, gr.Image) and not _uploaded(value) else value
            for block, value in zip(block_fn.inputs, inputs, strict=False)
        ]
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)


@dataclass(eq=False)
class Job:
    """A visitor's run, and why it shall stop, if it shall."""

    session: str
    stopped: str = ""


class Line:
    """The runs of all visitors in the order in which they came; the first one is at work."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._moved = threading.Condition()

    @contextmanager
    def place(self, session: str) -> Iterator[Job]:
        """Queue up a run. ValueError if the line is too long."""
        job = Job(session)
        with self._moved:
            if len(self._jobs) >= LONGEST_LINE:
                raise ValueError(f"Busy: {len(self._jobs)} pictures are waiting. Try again in a minute.")
            self._jobs.append(job)
        try:
            yield job
        finally:
            with self._moved:
                self._jobs.remove(job)
                self._moved.notify_all()

    def ahead(self, job: Job) -> int:
        """Return how many are ahead of this one, after a moment if it isn't its turn; 0 if it shall stop."""
        with self._moved:
            self._moved.wait_for(lambda: self._jobs[0] is job or job.stopped, timeout=0.3)
            return 0 if job.stopped else self._jobs.index(job)

    def stop(self, session: str, why: str) -> bool:
        """Stop a visitor's runs, wait until they have ended, and return whether there were any."""
        with self._moved:
            jobs = [job for job in self._jobs if job.session == session]
            for job in jobs:
                job.stopped = why
            self._moved.notify_all()
            self._moved.wait_for(lambda: not set(jobs) & set(self._jobs), timeout=30)
        return bool(jobs)


def _read(path: Path, max_pixels: int) -> tuple[Image.Image, str]:
    """Read a picture, and the reader's warnings as text for the visitor."""
    notes: list[str] = []
    thread = threading.get_ident()

    def note(record: logging.LogRecord) -> bool:
        if record.thread == thread:
            notes.append(record.getMessage().replace(str(path), path.name))
        return True

    files.logger.addFilter(note)
    try:
        image = files.read(path, max_pixels=max_pixels)
    finally:
        files.logger.removeFilter(note)
    return image, " ".join(f"{text}." for text in notes)


def _sentence(error: Exception, path: Path | None) -> str:
    """Describe an error by the picture's name instead of its path, which is the server's."""
    name = path.name if path else "The picture"
    if isinstance(error, ValueError):
        return f"{error}".replace(str(path), name)
    logger.error("%s failed", path, exc_info=error)
    return f"{name} cannot be enlarged: the server failed ({type(error).__name__})."


def _job(state: str, text: str, share: float | None = None) -> dict[str, Any]:
    """Make the value of the page's job.

    Args:
        state: idle, chosen, queued, running, done, cancelled or failed.
        text: the status line.
        share: how much is done, in [0, 1]; None where nothing is running.
    """
    return {"state": state, "text": text, "share": share}


def _file(path: Path, name: str) -> dict[str, Any]:
    return gr.FileData(path=str(path), orig_name=name).model_dump()


def _uploaded(value: Any) -> bool:
    """Return whether this is how Gradio names a file that was uploaded here."""
    match value:
        case {"path": str(name), "meta": {"_type": "gradio.FileData"}}:
            path = Path(name)
            with suppress(OSError, ValueError):  # a name that no file can have
                return ".." not in path.parts and path.is_relative_to(get_upload_folder()) and path.is_file()
    return False


def _examples() -> list[Path]:
    return sorted(path for path in EXAMPLES.iterdir() if path.suffix in files.SUFFIXES)


def _compare(
    image: Image.Image, result: Image.Image, folder: Path, side: int
) -> tuple[tuple[Path, Path], tuple[int, int]]:
    """Save bicubic and result for the comparison, at one size of at most `side`, and return them and the size."""
    shrink = min(1.0, side / max(result.size))
    size = (max(1, round(result.width * shrink)), max(1, round(result.height * shrink)))
    bicubic = image.resize(result.size, Image.Resampling.BICUBIC)
    paths = (folder / "bicubic.png", folder / "result.png")
    for path, large in zip(paths, (bicubic, result), strict=True):
        files.write(large.resize(size, Image.Resampling.LANCZOS) if shrink < 1 else large, path)
    return paths, size


if __name__ == "__main__":
    # Pillow's own limit, for what only decoding shows.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    create_demo().launch(**LAUNCH)
