"""Maps in files and in shards."""

import json

import numpy as np
import pytest
from swept_maps import CLEAN, Q_VALUES, identical, sweep

from nrmap.maps.episode_maps import load_maps, merge_maps, save_maps
from nrmap.support.errors import NrmapError


@pytest.fixture
def maps():
    return sweep(Q_VALUES, CLEAN, [3, 3, 5, 5], temperatures=(0.5, 1.0), prefix_sizes=(2, 4))


def test_a_file_of_maps_brings_them_back(tmp_path, maps):
    metadata = {"policy": "Freeway/ddqn/seed0", "num_states": 4}
    save_maps(tmp_path / "maps.npz", maps, metadata)
    loaded, found = load_maps(tmp_path / "maps.npz")
    assert identical(maps, loaded)
    assert found == metadata
    save_maps(tmp_path / "again.npz", loaded, found)
    assert (tmp_path / "maps.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as file:
        assert file["kmap"].shape == (2, 2, 3)
        assert file["prefix2/hmap"].shape == (2, 2, 2, 3)


def test_a_file_of_format_1_has_four_kinds_of_maps(tmp_path, maps):
    path = tmp_path / "maps.npz"
    save_maps(path, maps, {"policy": "p"})
    with np.load(path) as file:
        arrays = {name: array for name, array in file.items() if "flip_map" not in name}
    arrays["flips"], arrays["nrmap_maps"] = (
        np.zeros(2, np.int64),
        ('{"format": 1, "prefixes": [2, 4], "metadata": {"policy": "p"}}'),
    )
    np.savez(path, **arrays)
    loaded, metadata = load_maps(path)
    assert metadata == {"policy": "p"}
    assert list(loaded.arrays) == ["kmap", "hmap", "kl", "margin_drop"]
    assert all(np.array_equal(loaded[kind.name, t], maps[kind.name, t]) for kind, t, _ in loaded.each())
    with pytest.raises(NrmapError, match="unknown map 'flip_map'"):
        loaded["flip_map"]
    with pytest.raises(NrmapError, match="different kinds of maps"):
        merge_maps([maps, loaded])


def test_arrays_that_are_missing_or_wrong_are_named(tmp_path, maps):
    path = tmp_path / "maps.npz"
    save_maps(path, maps, {})
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["nrmap_maps"]))
    for changes, message in (
        ({"nrmap_maps": json.dumps(header | {"format": 99})}, "maps format 99: expected 2, or 1"),
        ({"nrmap_maps": '{"format": 1, "prefixes": []}'}, "is damaged: its metadata"),
        ({"kl": None}, "the array kl is missing"),
        ({"prefix2/flip_map": None}, "the array prefix2/flip_map is missing"),
        ({"kmap": arrays["kmap"].astype(np.float32)}, "kmap is float32, expected float64"),
        ({"prefix4/ties": arrays["prefix4/ties"] * 1.0}, "prefix4/ties is float64, expected int64"),
        ({"hmap": arrays["hmap"][:, :1]}, "hmap of 2 episodes is"),
        ({"q_gaps": arrays["q_gaps"][:3]}, "q_gaps of 2 episodes is \\(3,\\): expected \\(4,\\)"),
    ):
        changed = {name: array for name, array in (arrays | changes).items() if array is not None}
        np.savez(path, **changed)
        with pytest.raises(NrmapError, match=message):
            load_maps(path)


def test_shards_that_do_not_fit_are_refused():
    maps = sweep(Q_VALUES, CLEAN, [0, 0, 1, 1])
    with pytest.raises(NrmapError, match="more than one shard: \\[0, 1\\]"):
        merge_maps([maps, maps])
    with pytest.raises(NrmapError, match="different temperatures"):
        merge_maps([maps, sweep(Q_VALUES, CLEAN, [2, 2, 3, 3], temperatures=(2.0,))])
    with pytest.raises(NrmapError, match="different pixels"):
        merge_maps([maps, sweep(Q_VALUES[:, :1], CLEAN, [2, 2, 3, 3])])
    with pytest.raises(NrmapError, match="different prefix sizes"):
        merge_maps([maps, sweep(Q_VALUES, CLEAN, [2, 2, 3, 3], prefix_sizes=(2,))])
    with pytest.raises(NrmapError, match="no shards"):
        merge_maps([])
