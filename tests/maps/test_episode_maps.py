"""Maps in files and in shards."""

import json
from dataclasses import replace

import numpy as np
import pytest
from swept_maps import CLEAN, Q_VALUES, identical, sweep

from nrmap.maps.episode_maps import load_maps, merge_maps, save_maps
from nrmap.support.errors import NrmapError


@pytest.fixture
def maps():
    return sweep(Q_VALUES, CLEAN, [3, 3, 5, 5], temperatures=(0.5, 1.0), prefix_sizes=(2, 4))


def test_a_file_of_maps_brings_them_back(tmp_path, maps):
    one, two, metadata = tmp_path / "maps.npz", tmp_path / "again.npz", {"policy": "Freeway/ddqn/seed0"}
    save_maps(one, maps, metadata)
    loaded, found = load_maps(one)
    assert identical(maps, loaded)
    assert found == metadata
    save_maps(two, loaded, found)
    assert one.read_bytes() == two.read_bytes()
    with np.load(one, allow_pickle=False) as file:
        assert (file["kmap"].shape, file["prefix2/hmap"].shape) == ((2, 2, 3), (2, 2, 2, 3))


def test_the_players_of_the_episodes_come_back_also_from_metadata_of_format_2(tmp_path, maps):
    path, played = tmp_path / "maps.npz", replace(maps, players=np.array([1, 4]))
    save_maps(path, played, {"policy": "p"})
    assert np.array_equal(load_maps(path)[0].players, played.players)
    assert np.array_equal(merge_maps([load_maps(path)[0]]).players, played.players)
    with np.load(path) as file:
        arrays = dict(file)
    old = {"format": 2, "kinds": list(maps.arrays), "prefixes": [2, 4], "metadata": {"players": [1, 4], "policy": "p"}}
    np.savez(path, **{**arrays, "nrmap_maps": json.dumps(old)})
    loaded, metadata = load_maps(path)
    assert (loaded.players.tolist(), metadata) == ([1, 4], {"policy": "p"})


def test_a_file_of_format_1_has_four_kinds_of_maps(tmp_path, maps):
    path = tmp_path / "maps.npz"
    save_maps(path, maps, {"policy": "p"})
    with np.load(path) as file:
        arrays = {name: array for name, array in file.items() if "flip_map" not in name and name != "nrmap_maps"}
    header = json.dumps({"format": 1, "prefixes": [2, 4], "metadata": {"policy": "p"}})
    np.savez(path, **arrays, flips=np.zeros(2, np.int64), nrmap_maps=header)
    loaded, metadata = load_maps(path)
    assert (metadata, list(loaded.arrays)) == ({"policy": "p"}, ["kmap", "hmap", "kl", "margin_drop"])
    assert all(np.array_equal(loaded[kind.name, t], maps[kind.name, t]) for kind, t, _ in loaded.each())
    with pytest.raises(NrmapError, match="unknown map 'flip_map'"):
        loaded["flip_map"]
    with pytest.raises(NrmapError, match="different kinds of maps"):
        merge_maps([maps, loaded])


def test_arrays_that_contradict_each_other_are_named(tmp_path, maps):
    path = tmp_path / "maps.npz"
    save_maps(path, maps, {})
    with np.load(path) as file:
        arrays = dict(file)
    for changes, message in (
        ({"hmap": arrays["hmap"][:, :1]}, "hmap of 2 episodes is"),
        ({"q_gaps": arrays["q_gaps"][:3]}, "q_gaps of 2 episodes is \\(3,\\): expected \\(4,\\)"),
        ({"temperatures": -arrays["temperatures"]}, r"temperatures=\(-.*\): expected different numbers above 0"),
        ({"temperatures": arrays["temperatures"] * 0 + 1}, r"temperatures=\(1.*\): expected different numbers"),
        ({"episode_ids": arrays["episode_ids"][::-1]}, "not in ascending order of different ids"),
        ({"ties": arrays["ties"] - 10**6}, "states or ties in an episode: expected at least 0"),
        ({"temperatures": np.zeros(0)}, r"temperatures=\(\): expected different numbers above 0"),
        ({"kmap": arrays["kmap"] + 1e308}, r"kmap holds .* above 1e\+100"),
        ({"kmap": arrays["kmap"] * np.nan}, "kmap holds NaN or infinite values"),
    ):
        np.savez(path, **(arrays | changes))
        with pytest.raises(NrmapError, match=message):
            load_maps(path)


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ({"episode_ids": [0, 0, 1, 1]}, r"more than one shard: \[0, 1\]"),
        ({"temperatures": (2.0,)}, "different temperatures"),
        ({"q_values": Q_VALUES[:, :1]}, "different pixels"),
        ({"prefix_sizes": (2,)}, "different prefix sizes"),
    ],
)
def test_shards_that_do_not_fit_are_refused(shard, message):
    other = sweep(**{"q_values": Q_VALUES, "clean": CLEAN, "episode_ids": [2, 2, 3, 3]} | shard)
    with pytest.raises(NrmapError, match=message):
        merge_maps([sweep(Q_VALUES, CLEAN, [0, 0, 1, 1]), other])
    with pytest.raises(NrmapError, match="no shards"):
        merge_maps([])
