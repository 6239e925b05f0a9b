"""The Gradio demo: a small image in, a large one out. Run: python app.py [--help]"""

import argparse
import importlib.util
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

with suppress(ImportError):
    import spaces  # noqa: F401  # before torch, as ZeroGPU wants

import gradio as gr
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from srgan_hub.demo import api
from srgan_hub.demo import theme as demo_theme
from srgan_hub.demo.presets import find_upscaler
from srgan_hub.demo.service import Service
from srgan_hub.demo.spaces import ZERO_GPU
from srgan_hub.demo.tabs import batch as batch_tab
from srgan_hub.demo.tabs import compare as compare_tab
from srgan_hub.demo.tabs import upscale as upscale_tab
from srgan_hub.demo.uploads import Demo
from srgan_hub.hub import DEFAULT_MODEL, FIDELITY_MODEL, bundled_model_path, bundled_models

# A megapixel takes about half a minute on two CPU cores.
MAX_PIXELS = 4_000_000
MAX_FILE_SIZE = "50mb"
# Uploads and results are deleted when they are so old, in seconds.
RETENTION_SECONDS = 3600


def create_demo(
    models: Sequence[str] = (),
    *,
    max_pixels: int = MAX_PIXELS,
    concurrency: int = 1,
    queue: int = 20,
    kept: int = RETENTION_SECONDS,
    warm_up: bool = True,
) -> gr.Blocks:
    """Build the demo.

    Args:
        models: folders or Hub ids that may be compared beside the bundled models.
        max_pixels: the largest image that is accepted, in pixels.
        concurrency: how many images are upscaled at once.
        queue: how many runs may be in the line.
        kept: how long uploads and results are kept, in seconds.
        warm_up: make the examples' results in the background, which also tells the machine's speed.
    """
    if ZERO_GPU:  # a worker has what was loaded before it
        for name in (FIDELITY_MODEL, DEFAULT_MODEL):
            find_upscaler(name)
    service = Service(models, max_pixels=max_pixels, concurrency=concurrency, queue=queue)
    with Demo(title="SRGAN upscaler", delete_cache=(kept, kept)) as demo:
        api.build(service)  # first, since they are called by these names
        gr.HTML(demo_theme.HEADER, elem_id="header")
        with gr.Tab("One image"):
            upscale_tab.build(service, warm_up=warm_up)
        with gr.Tab("Compare"):
            compare_tab.build(service)
        with gr.Tab("Many"):
            batch_tab.build(service)
        gr.HTML(demo_theme.footer(max_pixels, MAX_FILE_SIZE, kept), elem_id="footer")
    return demo


def launch_options(theme: str | None = None) -> dict[str, Any]:
    """Return the options of `launch` that the demo needs: looks, limits, /health, and MCP where it is installed.

    Args:
        theme: a theme of Gradio's by name, or one of the Hub, in place of the demo's own.
    """
    return {
        "theme": theme or demo_theme.THEME,
        "css": demo_theme.CSS,
        "max_file_size": MAX_FILE_SIZE,
        "ssr_mode": False,
        "footer_links": ["api"],
        "mcp_server": importlib.util.find_spec("mcp") is not None,
        "app_kwargs": {"routes": [Route("/health", _health), Route("/about/{name}", _about)]},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the demo by the options of the command line, or of the environment where there are none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def add(name: str, default: Any, help: str, **options: Any) -> None:
        variable = f"SRGAN_{name.upper().replace('-', '_')}"
        default = os.environ.get(variable, default)
        parser.add_argument(f"--{name}", default=default, help=f"{help} [{variable}]", **options)

    add("host", None, "address to listen on, 0.0.0.0 is every one; none is Gradio's choice")
    add("port", None, "port to listen on; none is Gradio's choice", type=int)
    add("share", False, "make a public link through Gradio's servers", action=argparse.BooleanOptionalAction)
    add("models", "", "folders or Hub ids that may be compared beside the bundled models, with commas between")
    add("max-pixels", MAX_PIXELS, "the largest image, in pixels", type=_positive)
    add("concurrency", 1, "how many images are upscaled at once", type=_positive)
    add("queue", 20, "how many runs may be in the line", type=_positive)
    add("theme", None, "a theme of Gradio's or of the Hub in place of the demo's own")
    args = parser.parse_args(argv)
    # Pillow's own limit, for what only decoding shows.
    Image.MAX_IMAGE_PIXELS = args.max_pixels
    demo = create_demo(
        [name for name in args.models.split(",") if name],
        max_pixels=args.max_pixels,
        concurrency=args.concurrency,
        queue=args.queue,
    )
    share = args.share in (True, "1", "true")
    demo.launch(server_name=args.host, server_port=args.port, share=share, **launch_options(args.theme))


async def _about(request: Request) -> PlainTextResponse:
    """Show the license, or a bundled model's card."""
    name = request.path_params["name"]
    texts = {"license": Path(__file__).with_name("LICENSE")}
    texts |= {model: bundled_model_path(model) / "README.md" for model in bundled_models()}
    if name not in texts:
        return PlainTextResponse(f"There is nothing about {name!r} here.", status_code=404)
    return PlainTextResponse(texts[name].read_text(encoding="utf-8"))


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


async def _health(request: Request) -> JSONResponse:
    """Answer that the server is alive, without the queue."""
    return JSONResponse({"status": "ok"})


if __name__ == "__main__":
    main()
