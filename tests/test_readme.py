"""Commands and snippets in README.md and the docs work as pasted, and links and figures agree with their targets."""

import re
import shlex
from functools import partial
from pathlib import Path

import av
import numpy as np
import pydicom
import pytest
import rasterio
import tifffile
import torch
import yaml
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

import app
import train_accelerate
from srgan_hub import SRGAN, bundled_models, cli
from srgan_hub.hub import model_info
from srgan_hub.training import arguments as training_arguments

ROOT = Path(__file__).parent.parent
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("srgan_hub/docs/*.md"))}
README = PAGES[ROOT / "README.md"]
BENCHMARKS = (ROOT / "tests" / "benchmarks" / "README.md").read_text(encoding="utf-8")
DEMO = 'pip install -e ".[app]" && python app.py\n'
TESTS = 'pip install -e ".[test]" && pytest -n 2 --dist worksteal\n'


def code_blocks(page: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def command_lines(block: str) -> list[list[str]]:
    """Split a block of shell commands, without comments and with continued lines joined."""
    return [words for line in block.replace("\\\n", " ").splitlines() if (words := shlex.split(line, comments=True))]


def run_page(name: str) -> dict[str, object]:
    """Run the Python and bash blocks of a page in the working directory; `sh` blocks need what a test lacks."""
    namespace: dict[str, object] = {}
    for language, block in code_blocks(PAGES[ROOT / name]):
        if language == "python":
            exec(compile(block, name, "exec"), namespace)
        elif language == "bash" and block not in (DEMO, TESTS):
            for program, *words in command_lines(block):
                assert program == "srgan-hub"
                arguments = [file for word in words for file in (sorted(Path().glob(word)) if "*" in word else [word])]
                assert cli.main(list(map(str, arguments))) == 0, words
    return namespace


@pytest.fixture(autouse=True)
def _inputs(tmp_path, monkeypatch):
    """Small files under the names that the pages use."""
    monkeypatch.chdir(tmp_path)
    examples = Path("srgan_hub/examples")
    examples.mkdir(parents=True)
    with Image.open(ROOT / examples / "cat.png") as cat:
        for file, size in (("cat.png", (40, 30)), ("astronaut.png", (16, 16)), ("coffee.jpg", (200, 8))):
            cat.resize(size).save(examples / file)
        Path("album/summer").mkdir(parents=True)
        for file in ("photo.jpg", "album/a.jpg", "album/summer/b.png"):
            cat.resize((400, 6)).save(file)
    Image.fromarray(np.arange(0, 60_000, 100, np.uint16).reshape(20, 30)).save("scan.png")
    with av.open("clip.mp4", "w") as clip:
        stream = clip.add_stream("libx264", rate=25, width=16, height=16, pix_fmt="yuv420p")
        for value in (0, 99):
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((16, 16, 3), value, np.uint8))))
        clip.mux(stream.encode())


def test_readme_quickstart():
    run_page("README.md")
    sizes = {}
    for path in ("cat_x4.png", "cat_x2.png", "upscaled/cat_x4.png", "upscaled/astronaut_x4.png", "coffee_800.jpg"):
        with Image.open(path) as image:
            sizes[path] = image.size
    assert list(sizes.values()) == [(160, 120), (80, 60), (160, 120), (64, 64), (800, 32)]
    assert Path("cat_x4.png").read_bytes()
    assert not Path("srgan_hub/examples/cat_x4.png").exists()


def test_command_line_page(capsys):
    run_page("srgan_hub/docs/cli.md")
    written = {str(path) for path in Path().rglob("*") if path.is_file()}
    upscaled = {f"{folder}/{name}" for folder in ("upscaled",) for name in ("a_x4.png", "summer/b_x4.png")}
    upscaled |= {"photo_x4.png", "smooth.png", "photo_1600.jpg", "scan16.png", "clip_x4.mp4", "upscaled/scan_x4.png"}
    assert upscaled | {"from_python/a_x2.png", "from_python/summer/b_x2.png"} <= written
    assert capsys.readouterr().out.count("done") == 2
    with Image.open("photo_1600.jpg") as image:
        assert image.width == 1600
    with Image.open("scan16.png") as image:
        assert image.mode == "I;16"


def test_formats_page(cat_image):
    cat = Image.fromarray(cat_image)
    for name in ("texture.png", "panorama.jpg", "normals.png"):
        cat.resize((32, 24)).save(name)
    cat.resize((32, 24)).convert("RGBA").save("material.png")
    run_page("srgan_hub/docs/formats.md")
    with Image.open("photo_x2.jpg") as image:
        assert image.size == (800, 12)
    model = SRGAN.from_pretrained("srgan-x4-photo")
    for name, wrap in (("texture.png", "xy"), ("panorama.jpg", "x")):
        with Image.open(f"{Path(name).stem}_x4.png") as image:
            assert np.array_equal(image, model.upscale(name, wrap=wrap))
    with Image.open("normals_x4.png") as image:
        lengths = np.linalg.norm(np.asarray(image) / 127.5 - 1, axis=2)
    assert np.abs(lengths - 1).max() < 0.01


def test_exported_model_runs_in_onnxruntime(capsys):
    run_page("srgan_hub/docs/deployment.md")
    assert "(1, 3, 120, 160)" in capsys.readouterr().out


def test_streaming_page(capsys):
    names = run_page("srgan_hub/docs/streaming.md")
    strips = re.findall(r"\((\d+), 1600, 3\)", capsys.readouterr().out)
    assert sum(map(int, strips)) == 24
    with torch.inference_mode():
        expected = SRGAN.from_pretrained("srgan-x4")(torch.from_numpy(names["lr"])).numpy()
    assert np.abs(names["sr"] - expected).max() < 1e-5


def make_scan() -> np.ndarray:
    array = np.random.default_rng(0).integers(100, 3_000, (12, 16), dtype=np.uint16)
    scan = pydicom.Dataset()
    scan.file_meta = pydicom.dataset.FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    scan.file_meta.MediaStorageSOPClassUID = scan.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    scan.file_meta.MediaStorageSOPInstanceUID = scan.SOPInstanceUID = pydicom.uid.generate_uid()
    scan.Rows, scan.Columns, scan.PixelSpacing = 12, 16, [0.5, 0.6]
    scan.SamplesPerPixel, scan.PhotometricInterpretation, scan.PixelRepresentation = 1, "MONOCHROME2", 0
    scan.BitsAllocated, scan.BitsStored, scan.HighBit = 16, 12, 11
    scan.PixelData = array.tobytes()
    scan.save_as("scan.dcm", enforce_file_format=True)
    return array


def test_scientific_recipes():
    """Values are the model's, and pixel positions stay right."""
    rng = np.random.default_rng(0)
    scan = make_scan()
    sky = rng.random((12, 16)).astype(np.float32) * 80 - 5
    header = fits.Header({"CRPIX1": 8.5, "CRPIX2": 6.5, "CDELT1": 0.1, "CDELT2": 0.2, "CRVAL1": 10.0, "CRVAL2": 20.0})
    header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    fits.PrimaryHDU(sky, header).writeto("galaxy.fits")
    channels = rng.integers(0, 5_000, (3, 12, 16), dtype=np.uint16)
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    profile = {"driver": "GTiff", "height": 12, "width": 16, "count": 3, "dtype": "uint16", "crs": "EPSG:32632"}
    with rasterio.open("map.tif", "w", transform=transform, **profile) as file:
        file.write(channels)
    cells = rng.integers(0, 900, (2, 12, 16), dtype=np.uint16)
    tifffile.imwrite("cells.ome.tif", cells, metadata={"axes": "CYX"})

    run_page("srgan_hub/docs/scientific.md")
    model = SRGAN.from_pretrained("srresnet-x4-photo")

    def expect(array: np.ndarray) -> np.ndarray:
        low, high = float(array.min()), float(array.max())
        tensor = torch.from_numpy((array.astype(np.float64) - low) / (high - low)).float().expand(3, -1, -1)
        return model.upscale(tensor, dtype="float32").mean(0).double().numpy() * (high - low) + low

    result = pydicom.dcmread("scan_x4.dcm")
    assert np.abs(result.pixel_array - expect(scan)).max() < 1.5
    assert [float(spacing) for spacing in result.PixelSpacing] == [0.125, 0.15]
    with fits.open("galaxy_x4.fits") as file:
        assert np.abs(file[0].data - expect(sky)).max() < 0.05
        upscaled, original = WCS(file[0].header), WCS(header)
        corners = upscaled.wcs_pix2world([[-0.5, -0.5], [63.5, 47.5]], 0)
        assert np.allclose(corners, original.wcs_pix2world([[-0.5, -0.5], [15.5, 11.5]], 0))
    with rasterio.open("map_x4.tif") as file:
        assert file.crs.to_epsg() == 32632 and file.transform == rasterio.Affine(2.5, 0, 500_000, 0, -2.5, 5_000_000)
        assert all(np.abs(new - expect(old)).max() < 1.5 for new, old in zip(file.read(), channels, strict=True))
    with tifffile.TiffFile("cells_x4.ome.tif") as file:
        assert file.is_ome and 'PhysicalSizeX="0.0625"' in file.ome_metadata
        assert np.abs(file.asarray()[1] - expect(cells[1])).max() < 1.5


def test_commands_that_are_not_run_parse():
    """Those that need a GPU, the network or hours."""
    package = cli.build_parser().parse_args
    parsers = {"srgan-hub": package, "srgan_hub": package, "train_accelerate.py": training_arguments.parse_args}
    parsed = 0
    for page in PAGES.values():
        for language, block in code_blocks(page):
            for words in command_lines(block) if language == "sh" else ():
                for program, parse in parsers.items():
                    if program in words and words[-1] != "...":
                        parse(words[words.index(program) + 1 :])
                        parsed += 1
    assert parsed >= 12


def test_flags_in_text_exist(capsys):
    commands = re.findall(r"^\| `(\w+)` \|", PAGES[ROOT / "srgan_hub" / "docs" / "cli.md"], re.MULTILINE)
    helps = [partial(cli.main, [command, "--help"]) for command in commands]
    for show_help in (*helps, partial(app.main, ["--help"]), partial(train_accelerate.main, ["--help"])):
        with pytest.raises(SystemExit):
            show_help()
    known = set(re.findall(r"--[a-z][\w-]+", capsys.readouterr().out))
    named = {flag for page in PAGES.values() for flag in re.findall(r"`(--[a-z][\w-]+)", page)}
    assert len(named) > 30 and named <= known


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "tests/benchmarks/README.md"], ids=lambda page: page.name
)
def test_links_lead_to_files_and_headings(page):
    for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#?)([^)]*)\)", page.read_text(encoding="utf-8")):
        file = (page.parent / target).resolve() if target else page
        assert file.is_file(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w-]", "", text.lower().replace(" ", "-")) for text in headings}


def test_space_front_matter():
    front = README.split("---")[1]
    metadata = yaml.safe_load(front)
    assert (metadata["sdk"], metadata["app_file"], metadata["license"]) == ("gradio", "app.py", "apache-2.0")
    assert len(metadata["short_description"]) <= 60
    assert metadata["python_version"] in ("3.10", "3.12")  # what ZeroGPU offers
    assert sorted(name.split("/")[1] for name in metadata["models"]) == bundled_models()
    assert "preload_from_hub" not in metadata  # the models are part of the package
    assert (ROOT / metadata["thumbnail"].partition("/resolve/main/")[2]).is_file()
    lowest, next_major = re.search(r"gradio>=([\d.]+),<(\d+)", (ROOT / "requirements.txt").read_text()).groups()
    version = [int(part) for part in metadata["sdk_version"].split(".")]
    assert [int(part) for part in lowest.split(".")] <= version < [int(next_major)]


def test_readme_has_two_setup_commands_and_one_page():
    setup = [block for _, block in code_blocks(README) if "pip install" in block]
    assert setup == [DEMO, TESTS]
    assert TESTS in (ROOT / ".ci" / "run").read_text()
    assert README.count("\n") <= 180


def test_fine_tuning_recipe_is_the_one_of_the_guide():
    recipe = next(block for _, block in code_blocks(README) if "--freeze-bn" in block)
    assert recipe in PAGES[ROOT / "srgan_hub" / "docs" / "training.md"]


def test_ci_runs_the_lowest_and_highest_python():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "run: bash .ci/run" in workflow and '["3.10", "3.13"]' in workflow


def test_speed_table_equals_the_benchmarks_page():
    rows = re.findall(r"^\|.*\| [\d.]+ \|$", README.split("\n## Speed\n")[1].split("\n## ")[0], re.MULTILINE)
    assert len(rows) == 5 and all(f"{row}\n" in BENCHMARKS for row in rows)
    command = "python tests/benchmarks/inference.py --runs 3"
    assert command in README and command in BENCHMARKS


def test_model_scores_equal_the_model_cards():
    rows = re.findall(r"^\| `(\S+)`.*\| \**([\d.]+)\** \| \**([\d.]+)\** \|$", README, re.MULTILINE)
    assert sorted(name for name, *_ in rows) == bundled_models()
    for name, *scores in rows:
        sections = re.findall(r"^### (Set14.*?)\n(.*?)(?=^### |\Z)", str(model_info(name).card), re.M | re.S)
        for score, title in zip(scores, ("Set14", "Set14, LR saved as JPEG 75 (4:2:0)"), strict=True):
            assert f"| {name} | {score} |" in dict(sections)[title]
