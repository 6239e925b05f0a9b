"""Paired differences, JSON and Markdown."""

import dataclasses
import json

import pytest
from sample_images import FAST

from srgan_hub.evaluate import evaluate
from srgan_hub.evaluate.report import ModelResult, Protocol, Report


@pytest.fixture(scope="module")
def protocol():
    return Protocol("Set5", 3, 4, 4, "files in LRbicx4", "", "0" * 64)


def make_report(protocol, **scores):
    """Rows by name, with the PSNR of images a, b, ..."""
    rows = {
        name: ModelResult(name, {image: {"psnr_y": value} for image, value in zip("abcdef", values, strict=False)})
        for name, values in scores.items()
    }
    return Report(protocol, tuple(rows.values()))


def test_differences_are_paired_and_have_bootstrap_intervals(protocol):
    first = [20.0, 30, 25]
    report = make_report(protocol, bicubic=[18.0, 28, 23], x=first, y=[21.0, 30, 28], z=first)
    differences = report.differences()
    assert differences.keys() == {"bicubic", "y", "z"}
    assert differences["bicubic"]["psnr_y"] == (-2, -2, -2)
    assert differences["z"]["psnr_y"] == (0, 0, 0)
    # Of the differences 1, 0, 3, a resample has the mean 0 or 3 once in 27 times each: more than 2.5 %.
    assert differences["y"]["psnr_y"] == (pytest.approx(4 / 3), 0, 3)
    assert report.differences() == differences
    other = report.with_baseline("y")
    assert other.models == ["y", "x", "z"]
    assert other.differences()["x"]["psnr_y"].mean == pytest.approx(-4 / 3)
    with pytest.raises(ValueError, match="has no model 'q'"):
        report.with_baseline("q")


def test_json_and_markdown_have_protocol_and_means(data, make_model):
    report = evaluate([make_model("a", 0), make_model("b", 1)], data=data, metrics=FAST, jpeg=50)
    content = json.loads(report.to_json())
    assert content["protocol"] == dataclasses.asdict(report.protocol)
    assert content["rows"][2]["images"] == report["b"].images
    assert content["rows"][1]["mean"]["psnr_y"] == report["a"].mean("psnr_y")
    assert content["differences"]["b"]["psnr_y"]["mean"] == pytest.approx(
        report["b"].mean("psnr_y") - report["a"].mean("psnr_y")
    )
    table = report.to_markdown()
    assert "Tiny: 2 images. LR: x4, bicubic of MATLAB, saved as JPEG 50 (4:2:0)." in table
    assert "4 pixels cropped from each side" in table
    assert f"| a | {report['a'].mean('psnr_y'):.2f} | {report['a'].mean('ssim_y'):.4f} |" in table
    assert "| HR | - | - |" in table and "| time, s |\n" in table and f"| {report['a'].seconds:.2f} |\n" in table
    assert "time, s" not in report.to_markdown(cost=False)
