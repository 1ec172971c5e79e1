"""Wrong arguments of the commands without Hydra are one line."""

from importlib import import_module

import pytest

from nrmap.support.files import write_json


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("analyze.publish", "", "required: folders"),
        ("analyze.report.__main__", "--outputs", "--outputs: expected one argument"),
        ("bench.cost", f"--games {'9' * 400}", "expected a whole number from 1"),
        ("bench.cost", "--folder damaged", "the measurements in damaged are not those of python -m bench.train"),
        ("bench.curves", "curves.png", "curves.png: expected a CSV file"),
        ("bench.maps", "--policy nowhere", "no policy file nowhere"),
        ("bench.robustness", "file --threads 99999", "--threads: 99999: expected a whole number from 1 to 64"),
    ],
)
def test_a_wrong_argument_is_one_line(command, arguments, expected, tmp_path, monkeypatch, ended) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train.json", "host.json"):
        write_json(tmp_path / "damaged" / name, {})
    status, _, error = ended(import_module(command).main, *arguments.split())
    assert (status, error[:7], error.count("\n")) == (2, "error: ", 1)
    assert expected in error
