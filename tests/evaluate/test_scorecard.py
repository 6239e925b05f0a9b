"""Scores in model cards."""

import pytest
from huggingface_hub import ModelCard
from sample_images import FAST

from srgan_hub.evaluate import evaluate, write_to_card
from srgan_hub.hub import ModelLoadError


def test_scores_are_replaced_in_the_card(data, make_model):
    directory = make_model("a", 0)
    card = (directory / "README.md").read_text()
    (directory / "README.md").write_text(card.replace("## Limits", "## Limits\n\nMine is kept."))
    reports = [
        evaluate([make_model("b", 1), directory], data=data, metrics=FAST, jpeg=quality) for quality in (None, 75)
    ]
    write_to_card(directory, reports)
    first = (directory / "README.md").read_text()
    write_to_card(directory, reports)
    assert (directory / "README.md").read_text() == first
    assert "Mine is kept." in first and first.count("## Scores") == 1
    assert "### Tiny\n" in first and "### Tiny, LR saved as JPEG 75 (4:2:0)\n" in first
    assert "Difference to a," in first
    loaded = ModelCard.load(directory / "README.md")
    assert loaded.data.license == "apache-2.0" and loaded.data.weights_sha256
    results = [r for r in loaded.data.eval_results if r.metric_type == "psnr"]
    assert [r.dataset_config for r in results] == [
        "x4, bicubic of MATLAB",
        "x4, bicubic of MATLAB, saved as JPEG 75 (4:2:0)",
    ]
    assert [r.metric_value for r in results] == [round(r["a"].mean("psnr_y"), 3) for r in reports]
    assert results[0].metric_name == "PSNR Y, dB, crop border 4" and results[0].dataset_name == "Tiny"
    with pytest.raises(ValueError, match="has no model 'c'"):
        write_to_card(make_model("c", 2), reports)
    with pytest.raises(ModelLoadError, match=r"has no README\.md"):
        write_to_card(data, reports)
