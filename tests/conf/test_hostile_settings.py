"""Any settings are accepted or refused in one line, within seconds, and before anything is done."""

import copy
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from composed import composed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import changed_json

import analyze.__main__
import train.__main__
from conf.command_line import CommandLine, register_games
from nrmap.support.errors import NrmapError

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]
READ: dict[str, Callable[[Any, bool], Any]] = {"train": train.__main__.read, "analyze": analyze.__main__.read}
CHOICES = [("train", "method=ddqn"), ("train", "method=sa_ddqn"), ("train", "method=sa_ddqn_ibp"), ("analyze",)]
HERE = settings(suppress_health_check=list(HealthCheck))

magnitudes = st.builds(lambda sign, power: sign * 10**power, st.sampled_from((-1, 1)), st.integers(0, 400))
numbers = st.booleans() | st.integers() | magnitudes | st.floats() | st.sampled_from((1e-320, 1e308, 2**32, 2**64))
words = st.text(max_size=20) | st.sampled_from(("auto", "own", "x.npz", "x.safetensors", "1/0", "\ud800", "a\0"))
values = st.recursive(
    st.none() | numbers | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)


def outcome(read: Callable[[], Any]) -> str | None:
    """The line of a refusal, or None; any other exception and five seconds of computing fail the test."""
    begun, line = time.thread_time(), None
    try:
        read()
    except NrmapError as error:
        line = str(error)
        assert "\n" not in line
        assert 0 < len(line) < 500
    assert time.thread_time() - begun < 5
    return line


def places(node: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(node, dict):
        return [path]
    return [path, *(place for key, value in node.items() for place in places(value, (*path, key)))][not path :]


@HERE
@given(st.data())
def test_a_value_of_any_type_and_magnitude(data: st.DataObject) -> None:
    name, *options = data.draw(st.sampled_from(CHOICES))
    config = copy.deepcopy(composed(name, *options))
    *path, last = data.draw(st.sampled_from(places(config)))
    parent = config
    for key in path:
        parent = parent[key]
    parent[last] = data.draw(values)
    line = outcome(lambda: READ[name](config, True))
    if line is not None and not isinstance(parent[last], dict):
        known = (last, *path[-1:], "screen", "game", "UTF-8")
        assert any(word in line for word in known), "the key is not named"


@HERE
@given(st.data())
def test_a_key_removed_added_or_renamed(data: st.DataObject) -> None:
    name, *options = data.draw(st.sampled_from(CHOICES))
    config = json.loads(data.draw(changed_json(composed(name, *options))))
    outcome(lambda: READ[name](config, True))


@settings(HERE, max_examples=settings().max_examples // 8)
@given(st.data())
def test_a_command_line(data: st.DataObject) -> None:
    register_games()
    name, *options = data.draw(st.sampled_from(CHOICES))
    keys = [".".join(place) for place in places(composed(name, *options))]
    key = data.draw(st.sampled_from([*keys, "outputs", "env", "method", "hydra/launcher", "hydra.run.dir", "x", ""]))
    text = data.draw(st.text(st.sampled_from("0aA-+~=.,:;'\"\\[]{}()$ /*\t\n\0\ud800é"), max_size=8) | values.map(str))
    flag = data.draw(st.sampled_from((["-m"], ["--x"], [], [], [])))
    override = f"{data.draw(st.sampled_from(('', '', '', '~', '+', '++')))}{key}={text}"

    def read() -> None:
        for config in itertools.islice(CommandLine([*flag, *options, override]).configurations(name), 3):
            READ[name](config, True)

    outcome(read)


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield
    assert not list(folder.iterdir())
