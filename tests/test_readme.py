"""The README's Python runs as pasted, and what it points to is there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

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

from srgan_hub import SRGAN
from srgan_hub.hub import bundled_models

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_snippets_run_as_pasted(tmp_path):
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) >= 2
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(snippets)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "cat_x4.png") as result:
        assert result.size == (904, 600)
    shapes = re.findall(r"\((\d+), 904, 3\)", run.stdout)
    assert sum(map(int, shapes)) == 600


def test_the_exported_model_runs_in_another_program(tmp_path):
    export, use = re.search(r'&& (python -m srgan_hub export .*)\n(python -c ".*")\n', README).groups()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    for line in (export, use):
        command = [sys.executable, *shlex.split(line)[1:]]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(1, 3, 120, 160)"


def test_a_step_streams_in_another_program(tmp_path):
    command = re.search(r"`(python -m srgan_hub export .* --streaming)`", README)[1]
    (loop,) = [each for each in re.findall(r"```py\n(.*?)```", README, re.DOTALL) if "onnx" in each]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    save = "\nnp.save('lr.npy', lr); np.save('sr.npy', sr)\n"
    for arguments in (shlex.split(command)[1:], ["-c", loop + save]):
        run = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
    with torch.inference_mode():
        expected = SRGAN.from_pretrained("srgan-x4")(torch.from_numpy(np.load(tmp_path / "lr.npy"))).numpy()
    assert np.abs(np.load(tmp_path / "sr.npy") - expected).max() < 1e-5


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_links_lead_to_files(target):
    assert (ROOT / target).is_file()


def test_space_front_matter_names_the_app():
    front = README.split("---")[1]
    for line in ("sdk: gradio", "app_file: app.py", "license: apache-2.0"):
        assert line in front
    metadata = yaml.safe_load(front)
    assert len(metadata["short_description"]) <= 60
    assert metadata["python_version"] in ("3.10", "3.12")  # those of ZeroGPU
    # They come with the package, so that nothing is to be preloaded from the Hub.
    assert (
        sorted(name.split("/")[1] for name in metadata["models"]) == bundled_models()
        and "preload_from_hub" not in front
    )
    assert (ROOT / metadata["thumbnail"].partition("/resolve/main/")[2]).is_file()
    wanted = re.search(r"gradio>=([\d.]+),<(\d+)", (ROOT / "requirements.txt").read_text())
    version = re.search(r"sdk_version: (\d+)\.(\d+)", front)
    assert tuple(map(int, version.groups())) >= tuple(map(int, wanted[1].split(".")))
    assert int(version[1]) < int(wanted[2])


def test_the_two_commands_are_the_ones_that_ci_runs():
    assert "pip install -r requirements.txt && python app.py" in README
    command = 'pip install -e ".[test]" && pytest -n 2 --dist worksteal\n'
    assert command in README and command in (ROOT / ".ci" / "run").read_text()


def test_the_workflow_runs_the_gate_on_the_lowest_and_the_highest_python():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "run: bash .ci/run" in workflow and '["3.10", "3.13"]' in workflow


def test_the_first_screen_says_what_sets_the_package_apart_and_how_to_install_it():
    opening = README.split("# srgan-hub\n")[1].split("\n## ")[0]
    for words in ("ordinary CPU", "no seams", "pip install .", "comparison.jpg"):
        assert words in opening


def make_scan(folder: Path) -> np.ndarray:
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
    scan.save_as(folder / "scan.dcm", enforce_file_format=True)
    return array


def test_recipes_of_science(tmp_path):
    """On files made here; what they give is what the network gives, and the places of the pixels are right."""
    rng = np.random.default_rng(0)
    scan = make_scan(tmp_path)
    sky = rng.random((12, 16)).astype(np.float32) * 80 - 5
    header = fits.Header({"CRPIX1": 8.5, "CRPIX2": 6.5, "CDELT1": 0.1, "CDELT2": 0.2, "CRVAL1": 10.0, "CRVAL2": 20.0})
    header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    fits.PrimaryHDU(sky, header).writeto(tmp_path / "galaxy.fits")
    bands = rng.integers(0, 5_000, (3, 12, 16), dtype=np.uint16)
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    profile = {"driver": "GTiff", "height": 12, "width": 16, "count": 3, "dtype": "uint16", "crs": "EPSG:32632"}
    with rasterio.open(tmp_path / "map.tif", "w", transform=place, **profile) as file:
        file.write(bands)
    cells = rng.integers(0, 900, (2, 12, 16), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "cells.ome.tif", cells, metadata={"axes": "CYX"})

    recipes = [each for each in re.findall(r"```py\n(.*?)```", README, re.DOTALL) if "onnx" not in each]
    assert len(recipes) == 5
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(recipes)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    model = SRGAN.from_pretrained("srresnet-x4-photo")

    def expect(array: np.ndarray) -> np.ndarray:
        low, high = float(array.min()), float(array.max())
        tensor = torch.from_numpy((array.astype(np.float64) - low) / (high - low)).float().expand(3, -1, -1)
        return model.upscale(tensor, dtype="fp32").mean(0).double().numpy() * (high - low) + low

    result = pydicom.dcmread(tmp_path / "scan_x4.dcm")
    assert np.abs(result.pixel_array - expect(scan)).max() < 1.5
    assert [float(each) for each in result.PixelSpacing] == [0.125, 0.15]
    with fits.open(tmp_path / "galaxy_x4.fits") as file:
        assert np.abs(file[0].data - expect(sky)).max() < 0.05
        large, small = WCS(file[0].header), WCS(header)
        assert np.allclose(
            large.wcs_pix2world([[-0.5, -0.5], [63.5, 47.5]], 0), small.wcs_pix2world([[-0.5, -0.5], [15.5, 11.5]], 0)
        )
    with rasterio.open(tmp_path / "map_x4.tif") as file:
        assert file.crs.to_epsg() == 32632 and file.transform == rasterio.Affine(2.5, 0, 500_000, 0, -2.5, 5_000_000)
        assert all(np.abs(band - expect(old)).max() < 1.5 for band, old in zip(file.read(), bands, strict=True))
    with tifffile.TiffFile(tmp_path / "cells_x4.ome.tif") as file:
        assert file.is_ome and 'PhysicalSizeX="0.0625"' in file.ome_metadata
        assert np.abs(file.asarray()[1] - expect(cells[1])).max() < 1.5
