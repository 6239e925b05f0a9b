"""Gradio demo of SRGAN image upscaling. Run: python app.py [--help]"""

import argparse
import importlib.util
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

with suppress(ImportError):
    import spaces  # noqa: F401  # ZeroGPU requires it before torch

import gradio as gr
from huggingface_hub import ModelCard
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from srgan_hub.demo import api, theme
from srgan_hub.demo.presets import load_upscaler
from srgan_hub.demo.queue import count
from srgan_hub.demo.service import Service
from srgan_hub.demo.spaces import ZERO_GPU
from srgan_hub.demo.tabs import batch, compare, upscale
from srgan_hub.demo.uploads import MAX_FILE_MB, Demo
from srgan_hub.hub import DEFAULT_MODEL, FIDELITY_MODEL, bundled_model_path, bundled_models

MAX_PIXELS = 4_000_000  # a megapixel takes about half a minute on two CPU cores
RETENTION_SECONDS = 3600


def create_demo(
    models: Sequence[str] = (),
    *,
    max_pixels: int = MAX_PIXELS,
    concurrency: int = 1,
    queue_size: int = 20,
    retention_seconds: int = RETENTION_SECONDS,
    warm_up: bool = True,
) -> gr.Blocks:
    """Create the demo.

    Args:
        models: Directories or Hub ids that can be compared, in addition to the bundled models.
        max_pixels: Maximum input width times height.
        concurrency: Number of jobs that run at once.
        queue_size: Maximum number of jobs, including running ones.
        retention_seconds: How long uploads and results are kept.
        warm_up: Upscale the examples in the background, which also calibrates time estimates.
    """
    if ZERO_GPU:  # workers share what was loaded before they start
        for name in (FIDELITY_MODEL, DEFAULT_MODEL):
            load_upscaler(name)
    service = Service(models, max_pixels=max_pixels, concurrency=concurrency, queue_size=queue_size)
    footer = {
        "megapixels": count(max_pixels / 1e6, "megapixel"),
        "megabytes": MAX_FILE_MB,
        "retention": "one hour" if retention_seconds == 3600 else count(retention_seconds / 3600, "hour"),
        "models": bundled_models(),
        "space": os.environ.get("SPACE_ID"),
    }
    with Demo(title="SRGAN Image Upscaler", delete_cache=(retention_seconds, retention_seconds)) as demo:
        api.build(service)
        theme.component("header", elem_id="header")
        with gr.Tab("Upscale"):
            upscale.build(service, warm_up=warm_up)
        with gr.Tab("Compare models"):
            compare.build(service)
        with gr.Tab("Batch"):
            batch.build(service)
        theme.component("footer", footer, elem_id="footer")
    for name in bundled_models():
        with demo.route(name, name, show_in_navbar=False):
            gr.HTML('<a href="./">SRGAN Image Upscaler</a>')
            gr.Markdown(ModelCard.load(bundled_model_path(name) / "README.md").text, elem_classes="card")
    return demo


def launch_options(theme_name: str | None = None) -> dict[str, Any]:
    """Return the demo's options of `gr.Blocks.launch`: theme, limits, /health, /license, and MCP if it is installed."""
    return {
        "theme": theme_name or theme.create_theme(),
        "css": theme.read_static("app.css"),
        "max_file_size": f"{MAX_FILE_MB}mb",
        "ssr_mode": False,
        "footer_links": ["api"],
        "mcp_server": importlib.util.find_spec("mcp") is not None,
        "app_kwargs": {"routes": [Route("/health", _health), Route("/license", _license)]},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Launch the demo with options from the command line or the environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def add(name: str, default: Any, help: str, **options: Any) -> None:
        variable = f"SRGAN_{name.upper().replace('-', '_')}"
        default = os.environ.get(variable, default)
        parser.add_argument(f"--{name}", default=default, help=f"{help} [{variable}]", **options)

    add("host", None, "address to listen on, 0.0.0.0 for all; None for Gradio's default")
    add("port", None, "port to listen on; None for Gradio's default", type=int)
    add("share", False, "create a public link through Gradio's servers", action=argparse.BooleanOptionalAction)
    add("models", "", "comma-separated directories or Hub ids to compare, in addition to the bundled models")
    add("max-pixels", MAX_PIXELS, "maximum input width times height", type=_positive)
    add("concurrency", 1, "number of images upscaled at once", type=_positive)
    add("queue", 20, "maximum number of jobs in the queue", type=_positive)
    add("theme", None, "theme of Gradio or of the Hub that replaces the demo's")
    args = parser.parse_args(argv)
    models = [name for name in args.models.split(",") if name]
    limits = {"max_pixels": args.max_pixels, "concurrency": args.concurrency, "queue_size": args.queue}
    demo = create_demo(models, **limits)
    share = args.share in (True, "1", "true")
    demo.launch(server_name=args.host, server_port=args.port, share=share, **launch_options(args.theme))


async def _license(request: Request) -> PlainTextResponse:
    """Return the license."""
    return PlainTextResponse(Path(__file__).with_name("LICENSE").read_text(encoding="utf-8"))


async def _health(request: Request) -> JSONResponse:
    """Report that the server is alive, without the queue."""
    return JSONResponse({"status": "ok"})


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


if __name__ == "__main__":
    main()
