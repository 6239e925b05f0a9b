import pytest
from PIL import Image
from sample_images import image

from srgan_hub import SRGAN


@pytest.fixture
def data(tmp_path):
    """A directory with a color and a gray image, whose sides are not multiples of 4."""
    directory = tmp_path / "Tiny"
    directory.mkdir()
    Image.fromarray(image(70, 83)).save(directory / "color.png")
    Image.fromarray(image(67, 66, seed=1)[:, :, 0]).save(directory / "gray.png")
    return directory


@pytest.fixture
def make_model(tmp_path, tiny_generator):
    def make(name, seed, **options):
        model = SRGAN(channels=4, num_blocks=1, **options)
        model.generator.load_state_dict(tiny_generator(seed, num_blocks=1, **options).state_dict())
        model.save_pretrained(tmp_path / name, model_card_kwargs={"name": name})
        return tmp_path / name

    return make
