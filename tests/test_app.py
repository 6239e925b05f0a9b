"""Command line of the demo."""

import os
import runpy
import sys

import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

import app


@pytest.fixture
def calls(monkeypatch) -> list:
    """Arguments of `create_demo` and `launch`, which are replaced."""
    calls: list = []
    monkeypatch.setattr(app, "create_demo", lambda *args, **options: calls.append((args, options)) or gr.Blocks())
    monkeypatch.setattr(gr.Blocks, "launch", lambda self, **options: calls.append(options))
    return calls


def test_defaults(calls):
    app.main([])
    (((models,), options), launched) = calls
    assert (models, options) == ([], {"max_pixels": app.MAX_PIXELS, "concurrency": 1, "queue_size": 20})
    assert (launched["server_name"], launched["server_port"], launched["share"]) == (None, None, False)


FLAGS = "--host 0.0.0.0 --port 8000 --share --models a/b,c/d --max-pixels 99 --concurrency 3 --queue 7 --theme soft"


@pytest.mark.parametrize("source", ["command line", "environment"])
def test_options_come_from_the_command_line_or_the_environment(calls, monkeypatch, source):
    if source == "environment":
        for flag in FLAGS.removeprefix("--").split(" --"):
            name, _, value = flag.partition(" ")
            monkeypatch.setenv(f"SRGAN_{name.upper().replace('-', '_')}", value or "1")
    app.main(FLAGS.split() if source == "command line" else [])
    (((models,), options), launched) = calls
    assert models == ["a/b", "c/d"] and options == {"max_pixels": 99, "concurrency": 3, "queue_size": 7}
    assert [launched[name] for name in ("server_name", "server_port", "share", "theme")] == [
        "0.0.0.0",
        8000,
        True,
        "soft",
    ]


@pytest.mark.parametrize("argv", [["--port", "many"], ["--queue", "0"], ["--concurrency", "-1"], ["--max-pixels", "0"]])
def test_invalid_options_are_refused(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        app.main(argv)
    assert stopped.value.code == 2 and argv[0] in capsys.readouterr().err


def test_app_runs_as_a_script(monkeypatch):
    launched = []
    monkeypatch.setattr(gr.Blocks, "launch", lambda self, **options: launched.append(options))
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.setattr("srgan_hub.demo.service.upscale", lambda *args, **options: (_ for _ in ()))  # no warm-up
    runpy.run_path(app.__file__, run_name="__main__")
    assert launched[0]["max_file_size"] == "50mb" and launched[0]["mcp_server"] is True
