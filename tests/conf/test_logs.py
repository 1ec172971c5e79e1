"""Finished results are found in a folder that cannot be written: the log of the command goes elsewhere."""

import os
import tempfile
from pathlib import Path

from conf.logs import _name_of_logs, with_writable_logs


def test_the_name_of_a_log_folder_fits_a_file_system():
    for name in ("x" * 300, "日本" * 200, "\udcff" * 300):
        assert 0 < len(os.fsencode(_name_of_logs(f"/a/{name}.safetensors", "").partition("/")[2])) <= 100


def test_only_a_folder_that_cannot_be_written_gets_logs_elsewhere(tmp_path, monkeypatch):
    given = ["seed=1", f"outputs='{tmp_path}'"]
    assert with_writable_logs(given, tmp_path) == given
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    *same, run, sweep = with_writable_logs(given, tmp_path)
    assert same == given
    assert run.partition("=")[2] == sweep.partition("=")[2]
    assert Path(run.partition("=")[2].strip("'")).is_dir()
    own = [*given, "hydra.run.dir=x"]
    assert with_writable_logs(own, tmp_path) == own
    assert with_writable_logs(given, None) == with_writable_logs(given, Path("/nowhere/at all")) == given
