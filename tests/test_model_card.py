from pathlib import Path

import pytest
import torch
from huggingface_hub import EvalResult, ModelCard

from srgan_hub import SRGAN, bundled_model_path
from srgan_hub.hub import ModelLoadError, bundled_models, model_info
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


def tiny(seed: int = 0) -> SRGAN:
    torch.manual_seed(seed)
    return SRGAN(channels=4, num_blocks=1).eval()


def result(dataset: str, metric: str, value: float) -> EvalResult:
    facts = {"task_type": "image-to-image", "dataset_type": dataset.lower(), "dataset_name": dataset}
    return EvalResult(**facts, metric_type=metric, metric_value=value, metric_name=f"{metric} (Y, shave 4)")


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_say_where_they_come_from(name: str) -> None:
    facts = model_info(name)
    notice = (Path(__file__).parents[1] / "NOTICE").read_text()
    assert facts.sha256 in notice
    assert (
        facts.value("license") == "apache-2.0"
        and "Martin Krasser" in facts.section("Origin")
        and "DIV2K" in facts.section("Origin")
    )
    assert facts.value("made_by").startswith("srgan-hub ")
    assert (facts.parameters, facts.receptive_radius) == (1_550_659, 40)
    for fact in (name, "1,550,659", "40 rows", facts.sha256, "Martin Krasser"):
        assert fact in str(facts)


def test_an_attribution_survives_generations(tmp_path: Path) -> None:
    card = {"name": "child", **inherit_card_fields(bundled_model_path("srresnet-x4"), "srresnet-x4")}
    tiny().save_pretrained(tmp_path / "child", model_card_kwargs=card)
    card = {"name": "grandchild", **inherit_card_fields(tmp_path / "child", "child")}
    assert card["base_model"] == "child"
    tiny().save_pretrained(tmp_path / "grandchild", model_card_kwargs=card)
    origin = model_info(tmp_path / "grandchild").section("Origin")
    parts = [
        "`grandchild` was fine-tuned from `child`.",
        "`child` was fine-tuned from `srresnet-x4`.",
        "Martin Krasser",
    ]
    places = [origin.index(part) for part in parts]
    assert places == sorted(places)
    assert get_metadata(load_card_text(tmp_path / "grandchild"), "base_model") == "child"


def test_a_license_is_inherited(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path, model_card_kwargs={"license": "cc-by-4.0"})
    assert inherit_card_fields(tmp_path, "base")["license"] == "cc-by-4.0"
    (tmp_path / "README.md").unlink()
    assert inherit_card_fields(tmp_path, "base") == {"base_model": "base", "origin": ""}


def test_the_card_of_a_training_run() -> None:
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
    assert "not for evidence, identification or diagnosis" in get_section(text, "Limits")
    results = ModelCard(text).data.eval_results
    assert results == [result("Set14", "psnr", 27.8123), result("Set14", "ssim", 0.75)]
    assert text.endswith("checks it.\n")


def test_scores_are_written_into_a_card_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"0")
    card = set_weights_sha256(str(create_model_card(CONFIG, name="mine", origin="Mine.")), tmp_path / "weights")
    for psnr in (20.0, 21.5):
        card = update_scores(card, f"PSNR {psnr}", [result("Set5", "psnr", psnr)])
    assert get_section(card, "Scores") == "PSNR 21.5" and card.count("## Scores") == 1
    assert ModelCard(card).data.eval_results == [result("Set5", "psnr", 21.5)]
    assert get_metadata(card, "weights_sha256") == file_sha256(tmp_path / "weights")
    assert get_section(card, "Origin") == "Mine."
    assert card.index("## Scores") < card.index("## Limits")


def test_the_hash_is_written_without_touching_the_rest(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"0")
    digest = file_sha256(tmp_path / "weights")
    card = "---\r\nlicense: mit # mine\r\nweights_sha256: 'old'\r\n---\r\n\r\nweights_sha256: text\r\n"
    assert get_metadata(card, "weights_sha256") == "old"
    assert set_weights_sha256(card, tmp_path / "weights") == card.replace("'old'", f'"{digest}"')
    assert set_weights_sha256("# Title\n", tmp_path / "weights") == "# Title\n"  # a card that states none
    assert get_metadata("# Title\nkey: text\n", "key") is None
    assert get_metadata(str(create_model_card(CONFIG)), "weights_sha256") is None


def test_saving_again_states_the_new_hash_and_keeps_the_words(tmp_path: Path) -> None:
    tiny(0).save_pretrained(tmp_path)
    before = load_card_text(tmp_path)
    (tmp_path / "README.md").write_text(before + "\nMy words.\n")
    tiny(1).save_pretrained(tmp_path)
    digest = file_sha256(tmp_path / "model.safetensors")
    assert load_card_text(tmp_path) == (before + "\nMy words.\n").replace(
        get_metadata(before, "weights_sha256") or "", digest
    )
    SRGAN.from_pretrained(tmp_path)


def test_weights_of_another_hash_are_refused_and_shown(tmp_path: Path) -> None:
    tiny(0).save_pretrained(tmp_path / "a")
    tiny(1).save_pretrained(tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").write_bytes((tmp_path / "b" / "model.safetensors").read_bytes())
    with pytest.raises(ModelLoadError, match=r"is not what its card states: expected SHA-256 \w{64}, got \w{64}"):
        SRGAN.from_pretrained(tmp_path / "a")
    with pytest.raises(ModelLoadError, match="is not what its card states"):
        model_info(tmp_path / "a")
    (tmp_path / "a" / "README.md").unlink()
    SRGAN.from_pretrained(tmp_path / "a")
    assert model_info(tmp_path / "a").sha256 == file_sha256(tmp_path / "b" / "model.safetensors")
