"""Wrong arguments of the commands without Hydra are one line."""

import json
import sys
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("analyze.publish", "", "required: folders"),
        ("analyze.report", "--outputs", "--outputs: expected one argument"),
        ("bench.cost", "--cpu-jobs 0", "--cpu-jobs: 0: expected a whole number from 1"),
        ("bench.cost", "--seeds=-3", "--seeds: -3: expected a whole number from 1"),
        ("bench.cost", f"--games {'9' * 400}", "expected a whole number from 1"),
        ("bench.cost", "--folder damaged", "the measurements in damaged are not those of python -m bench.train"),
        ("bench.curves", "curves.png", "curves.png: expected a CSV file"),
        ("bench.maps", "--policy nowhere", "no policy file nowhere"),
        (
            "bench.robustness",
            "file --threads 1000000000",
            "--threads: 1000000000: expected a whole number from 1 to 64",
        ),
        ("bench.train", "--rounds none", "--rounds: none: expected a whole number"),
    ],
)
def test_a_wrong_argument_is_one_line(command, arguments, expected, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (damaged := tmp_path / "damaged").mkdir()
    for name in ("train.json", "host.json"):
        (damaged / name).write_text(json.dumps({}))
    module = import_module(f"{command}.__main__" if command == "analyze.report" else command)
    monkeypatch.setattr(sys, "argv", [command, *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        module.main()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("error: ")
    assert expected in error
    assert error.count("\n") == 1
