import copy
import dataclasses
import inspect
import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from srgan_hub import SRGAN
from srgan_hub.hub import ModelLoadError, bundled_model_path
from srgan_hub.model_card import file_sha256, get_metadata

CONFIG = {
    "scale": 3,
    "channels": 4,
    "num_blocks": 1,
    "upsampler": "nearest",
    "trunk_end": "batchnorm",
    "output_activation": "sigmoid",
}


class WithGain(SRGAN):
    """A subclass with an option and a parameter of its own, that passes all other options on."""

    def __init__(self, *, alpha: float = 1.0, **options):
        super().__init__(**options)
        self.alpha = alpha
        self.gain = torch.nn.Parameter(torch.full((3, 1, 1), alpha))

    def forward(self, lr):
        return super().forward(lr) * self.gain


class FixedScale(SRGAN):
    """A subclass that sets an option."""

    def __init__(self, *, channels: int = 4):
        super().__init__(scale=2, channels=channels, num_blocks=1)
        self.extra = torch.nn.Conv2d(3, 3, 1)


@dataclasses.dataclass
class Style:
    name: str = "film"
    grain: float = 0.5


class WithPositionalOptions(SRGAN):
    def __init__(self, alpha, num_blocks=1, *, style: Style = Style(), note=None, **options):  # noqa: B008
        self.depth = options.pop("depth", 1)
        super().__init__(num_blocks=num_blocks, **options)
        self.options = alpha, num_blocks, style, note
        self.register_buffer("table", torch.arange(3, dtype=torch.float64) / 3 * self.depth)


@pytest.fixture
def directory(tmp_path, tiny_generator):
    model = SRGAN(scale=3, channels=4, num_blocks=1, upsampler="nearest")
    model.generator.load_state_dict(tiny_generator(scale=3, num_blocks=1, upsampler="nearest").state_dict())
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_save_and_load_is_bit_identical(directory):
    model = SRGAN.from_pretrained(directory)
    assert not model.training
    assert json.loads((directory / "config.json").read_text()) == model.config == CONFIG
    assert model.save_pretrained(directory.parent / "again") is None
    again = SRGAN.from_pretrained(str(directory.parent / "again"))
    lr = torch.rand(2, 3, 5, 4)
    assert torch.equal(model(lr), again(lr))
    assert (directory / "model.safetensors").read_bytes() == (directory.parent / "again/model.safetensors").read_bytes()
    data = ModelCard.load(directory / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.license) == ("srgan-hub", "image-to-image", "apache-2.0")
    assert {"super-resolution", "srgan", "pytorch"} <= set(data.tags)


@pytest.mark.parametrize("options", [{"alpha": 0.5, "channels": 4, "num_blocks": 1}, {"num_blocks": 1, "channels": 3}])
def test_subclass_with_option_and_parameter_round_trips(options, tmp_path):
    torch.manual_seed(0)
    model = WithGain(**options).eval()
    model.gain.data += torch.rand(3, 1, 1)
    model.save_pretrained(tmp_path)
    loaded = WithGain.from_pretrained(tmp_path)
    assert type(loaded) is WithGain and loaded.alpha == options.get("alpha", 1.0)
    assert loaded.config == model.config == {**SRGAN(num_blocks=1).config, "alpha": 1.0, **options}
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    lr = torch.rand(1, 3, 5, 4)
    assert torch.equal(loaded(lr), model(lr))
    with pytest.raises(ModelLoadError, match="unexpected key 'alpha'"):
        SRGAN.from_pretrained(tmp_path)


def test_subclass_that_sets_an_option_round_trips(tmp_path):
    model = FixedScale(channels=5)
    model.save_pretrained(tmp_path)
    loaded = FixedScale.from_pretrained(tmp_path)
    assert loaded.config == model.config and loaded.scale == 2 and loaded.generator.head_conv.out_channels == 5
    assert torch.equal(loaded.extra.weight, model.extra.weight)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((3,), {}),
        ((3, 2), {"note": "x", "depth": 2}),
        ((None, 1), {"style": Style("drawing", 0.25), "note": None, "depth": -1}),
    ],
)
def test_positional_nested_and_collected_options_round_trip(arguments, options, tmp_path):
    model = WithPositionalOptions(*arguments, channels=4, **options)
    model.save_pretrained(tmp_path)
    loaded = WithPositionalOptions.from_pretrained(tmp_path)
    assert loaded.options == model.options and loaded.config == model.config
    assert loaded.table.dtype == torch.float64 and torch.equal(loaded.table, model.table)
    change_config(tmp_path, lambda config: config.update(color="red"))
    with pytest.raises(ModelLoadError, match="'color'"):
        WithPositionalOptions.from_pretrained(tmp_path)


def test_mixin_parameters_are_accepted(directory):
    assert SRGAN.from_pretrained(directory, map_location="meta").generator.head_conv.weight.is_meta
    assert SRGAN.from_pretrained(directory, map_location=torch.device("cpu"), revision="v1", token=False).scale == 3
    change_weights(directory, lambda weights: weights.pop("generator.tail_conv.bias"))
    with pytest.raises(ModelLoadError, match=r"tail_conv.bias"):
        SRGAN.from_pretrained(directory, strict=True)
    (directory / "README.md").unlink()
    assert SRGAN.from_pretrained(directory, strict=False).config == CONFIG
    config = {**CONFIG, "scale": 2}
    SRGAN(**config).save_pretrained(directory, config=config, model_card_kwargs={"license": "cc-by-4.0"})
    assert json.loads((directory / "config.json").read_text()) == config
    assert ModelCard.load(directory / "README.md").data.license == "cc-by-4.0"


def change_config(directory, change):
    config = json.loads((directory / "config.json").read_text())
    change(config)
    (directory / "config.json").write_text(json.dumps(config))


def change_weights(directory, change):
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors")
    card = directory / "README.md"
    card.write_text(card.read_text().replace(get_metadata(card.read_text(), "weights_sha256"), "0" * 64))


HEAD = "generator.head_conv.weight"


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        ("missing config.json", lambda d: (d / "config.json").unlink()),
        ("missing model.safetensors", lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin")),
        ("config.json': Expecting property name", lambda d: (d / "config.json").write_text("{")),
        ("unexpected key 'color'", lambda d: change_config(d, lambda c: c.update(color="red"))),
        ("missing key 'scale'", lambda d: change_config(d, lambda c: c.pop("scale"))),
        (
            "unexpected key 'output', missing key 'output_activation'",
            lambda d: change_config(d, lambda c: c.update(output=c.pop("output_activation"))),
        ),
        ("`scale`.*7", lambda d: change_config(d, lambda c: c.update(scale=7))),
        ("model.safetensors.*header", lambda d: (d / "model.safetensors").write_bytes(b"0" * 100)),
        (rf'Missing key\(s\).*"{HEAD}"', lambda d: change_weights(d, lambda w: w.pop(HEAD))),
        (r'Unexpected key\(s\).*"extra"', lambda d: change_weights(d, lambda w: w.update(extra=torch.zeros(1)))),
        (
            rf"size mismatch for {HEAD}: .*4, 3, 7, 7.*4, 3, 9, 9",
            lambda d: change_weights(d, lambda w: w.update({HEAD: torch.zeros(4, 3, 7, 7)})),
        ),
        *(
            (f"NaN or infinite values in '{HEAD}'", lambda d, v=value: change_weights(d, lambda w: w[HEAD][0].fill_(v)))
            for value in (float("nan"), float("inf"), -float("inf"))
        ),
        (
            "NaN or infinite values in 'generator.trunk.bn.running_var'",
            lambda d: change_weights(d, lambda w: w["generator.trunk.bn.running_var"].fill_(float("nan"))),
        ),
        (
            "model card: expected SHA-256 0{64}",
            lambda d: change_weights(d, lambda w: w.update({HEAD: w[HEAD] + 1})),
        ),
    ],
)
def test_invalid_directories_are_refused(message, damage, directory):
    damage(directory)
    with pytest.raises(ModelLoadError, match=message) as error:
        SRGAN.from_pretrained(directory)
    assert str(directory) in str(error.value)


def test_long_lists_of_missing_tensors_are_shortened(directory):
    change_config(directory, lambda c: c.update(num_blocks=3))
    with pytest.raises(ModelLoadError, match=r"trunk.block1.conv1.weight.* \[\.\.\.\]") as error:
        SRGAN.from_pretrained(directory)
    assert len(str(error.value).replace(str(directory), "")) < 360


def test_options_are_validated(directory):
    with pytest.raises(ValueError, match="`channels` must be a positive integer"):
        SRGAN(channels=np.int64(4), num_blocks=1)
    with pytest.raises(TypeError, match="strip"):
        SRGAN(channels=4, num_blocks=1).upscale(np.zeros((4, 4), np.uint8), strip=4)
    assert set(inspect.signature(SRGAN.upscale).parameters) == {
        *("self", "image", "size", "wrap", "alpha", "progress", "detail", "options")
    }


def test_unknown_names_list_the_bundled_models():
    names = r"srgan-x4, srgan-x4-photo, srresnet-x4, srresnet-x4-photo"
    with pytest.raises(ModelLoadError, match=rf"Model 'srgan-x5' not found: .*\({names}\)"):
        SRGAN.from_pretrained("srgan-x5")
    with pytest.raises(ModelLoadError, match=rf"'x'.*{names}"):
        bundled_model_path("x")


def test_directories_take_precedence_over_bundled_names(directory, monkeypatch):
    shutil.copytree(directory, directory.parent / "srgan-x4")
    monkeypatch.chdir(directory.parent)
    assert SRGAN.from_pretrained("srgan-x4").scale == 3
    monkeypatch.chdir("/")
    assert SRGAN.from_pretrained("srgan-x4").scale == 4


def test_deepcopy_is_independent(directory):
    model = SRGAN.from_pretrained(directory)
    other = copy.deepcopy(model)
    other.generator.head_conv.weight.data.zero_()
    assert model.generator.head_conv.weight.abs().sum() > 0
    assert other.config == model.config


def test_interpolate_is_linear_in_every_weight_and_exact_at_both_ends(tiny_generator):
    a, b = (SRGAN(channels=4, num_blocks=2) for _ in range(2))
    a.generator.load_state_dict(tiny_generator(0).state_dict())
    b.generator.load_state_dict(tiny_generator(1).state_dict())
    before = {name: tensor.clone() for name, tensor in a.state_dict().items()}
    for alpha in (0, 0.25, 1):
        mixed = SRGAN.interpolate(a, b, alpha)
        assert not mixed.training and mixed.config == a.config
        for name, tensor in mixed.state_dict().items():
            first, second = a.state_dict()[name], b.state_dict()[name]
            if alpha in (0, 1):
                assert torch.equal(tensor, (first, second)[alpha])
            else:
                torch.testing.assert_close(tensor, (0.75 * first + 0.25 * second).to(tensor.dtype))
    assert all(torch.equal(tensor, before[name]) for name, tensor in a.state_dict().items())


def test_interpolate_refuses_different_configs_and_invalid_alpha():
    a, b = SRGAN(channels=4, num_blocks=2), SRGAN(channels=6, num_blocks=2)
    with pytest.raises(ValueError, match=r"different configs: channels=4 vs\. channels=6"):
        SRGAN.interpolate(a, b, 0.5)
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"`alpha`.*{alpha}"):
            SRGAN.interpolate(a, a, alpha)
    with pytest.raises(ValueError, match="different configs"):
        a.upscale(np.zeros((4, 4, 3), np.uint8), detail=0.5)


def test_detail_interpolates_with_the_fidelity_model(bundled_model, cat_image):
    perceptual, fidelity, image = (
        bundled_model("srgan-x4-photo"),
        bundled_model("srresnet-x4-photo"),
        cat_image[50:62, 60:72],
    )
    options = {"dtype": "float32", "device": "cpu"}
    ends = [model.upscale(image, **options) for model in (fidelity, perceptual)]
    for detail in (0, 1):
        assert np.array_equal(perceptual.upscale(image, detail=detail, **options), ends[detail])
    half = SRGAN.interpolate(fidelity, perceptual, 0.5).upscale(image, **options)
    assert np.array_equal(perceptual.upscale(image, detail=0.5, **options), half)
    assert not np.array_equal(half, ends[1])


@pytest.mark.parametrize("change", [lambda m: None, lambda m: m.generator.head_conv.weight.data.add_(1)])
def test_saving_again_updates_only_the_hash_in_the_card(change, directory):
    card = directory / "README.md"
    before = card.read_text() + "\nEdited by hand.\n"
    card.write_text(before)
    model = SRGAN.from_pretrained(directory)
    change(model)
    model.save_pretrained(directory)
    digest = file_sha256(directory / "model.safetensors")
    assert card.read_text() == before.replace(get_metadata(before, "weights_sha256"), digest)
    SRGAN.from_pretrained(directory)
