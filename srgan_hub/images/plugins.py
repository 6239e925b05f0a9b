"""Formats that other packages teach Pillow to read."""

import importlib.util
from pathlib import Path

# By suffix: the package, and how it is installed. JPEG XL's is licensed by the GPL: it is used where it is there.
_PLUGINS = {
    ".heic": ("pillow_heif", "pip install 'srgan-hub[heif]'"),
    ".heif": ("pillow_heif", "pip install 'srgan-hub[heif]'"),
    ".hif": ("pillow_heif", "pip install 'srgan-hub[heif]'"),
    ".jxl": ("pillow_jxl", "pip install pillow-jxl-plugin"),
}


def load(path: Path) -> None:
    """Load the package that reads files of this suffix, if there is one."""
    name, _ = _PLUGINS.get(path.suffix.lower(), ("", ""))
    if name and importlib.util.find_spec(name):
        module = importlib.import_module(name)  # JPEG XL's is ready then
        if name == "pillow_heif":
            module.register_heif_opener()


def install_hint(path: Path) -> str:
    """Return what to do about a file of a kind that is not known, as the end of a sentence."""
    name, command = _PLUGINS.get(path.suffix.lower(), ("", ""))
    return f"{command} reads it" if name and not importlib.util.find_spec(name) else "convert it to PNG or JPEG"
