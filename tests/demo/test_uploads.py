"""Files that the demo accepts."""

from pathlib import Path

import pytest
from gradio.utils import get_upload_folder

from srgan_hub.demo.uploads import only_known, to_cached_file_data

META = {"meta": {"_type": "gradio.FileData"}}


@pytest.fixture(autouse=True)
def _upload_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))


def test_values_kept_by_a_browser_give_no_other_files_and_no_markup(tmp_path):
    (tmp_path / "private.png").write_bytes(b"private")
    (tmp_path / "result.png").write_bytes(b"result")
    result = to_cached_file_data(tmp_path / "result.png")
    assert Path(result["path"]).is_relative_to(get_upload_folder()) and result["orig_name"] == "result.png"
    private = {"path": f"{tmp_path}/private.png", **META}
    kept = {"file": result, "viewer": {"before": private, "full": [private, {**result, "more": private}]}, "width": 3}
    known = only_known({**kept, "name": "<b>&amp;", "job": {"path": 1}})
    assert known["file"] == result and known["width"] == 3 and known["name"] == "&lt;b&gt;&amp;"
    assert known["viewer"] == {"before": None, "full": [None, result]} and known["job"] is None
