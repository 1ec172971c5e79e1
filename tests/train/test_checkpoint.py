"""State that goes through a file comes back as it was, or the file is refused."""

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nrmap.support.errors import NrmapError
from train.checkpoint import load_checkpoint, save_checkpoint

some_arrays = st.sampled_from([np.uint8, np.int32, np.int64, np.float32, np.float64, np.bool_]).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
numbers = st.booleans() | st.integers(-(2**130), 2**130) | st.floats(allow_nan=False)  # a PCG64's state has 128 bits
leaves = st.none() | numbers | st.text(max_size=4) | some_arrays | some_arrays.map(torch.from_numpy)
names = st.text("ab.0", min_size=1, max_size=4)
nested = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))


@settings(max_examples=50)
@given(st.dictionaries(names, nested, max_size=4))
def test_any_state_comes_back(tmp_path_factory, assert_same, state):
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    save_checkpoint(path, state)
    assert_same(load_checkpoint(path), state)


def test_tensors_in_any_memory_layout_come_back(tmp_path):
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    shared = {"weight": weight, "same": weight, "part": weight[1:, :, 0], "turned": weight.transpose(0, 1)}
    save_checkpoint(tmp_path / "state", shared)
    for name, tensor in load_checkpoint(tmp_path / "state").items():
        assert torch.equal(tensor, shared[name])


@pytest.mark.parametrize("version", [{}, {"format": "3"}])
def test_a_checkpoint_of_another_version_is_refused(version, tmp_path):
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, {"step": 3})
    with safetensors.safe_open(path, framework="pt") as file:
        state = file.metadata()["state"]
    safetensors.torch.save_file({}, path, metadata={"state": state, **version})
    with pytest.raises(NrmapError, match=r"made by another version.*: remove it to start anew"):
        load_checkpoint(path)
