"""Arguments of public functions against their annotations."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from pydantic import Field

import nrmap
from nrmap.support.arguments import checked
from nrmap.support.errors import NrmapError


@checked
def function(
    agent: nrmap.Agent | None = None,
    path: str | Path = "a",
    numbers: Sequence[float] = (),
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
    kind: Literal["all", "each"] = "all",
    states: Any = None,
    maps: nrmap.Maps = None,  # type: ignore[assignment]
) -> dict[str, Any]:
    return {"path": path, "numbers": numbers, "seed": seed, "states": states}


def test_what_fits_arrives_with_the_numbers_of_numpy_and_torch_as_those_of_python():
    states = object()
    given = function(path=Path("b"), numbers=np.array([1, 2.5]), seed=np.int64(3), states=states)
    assert given == {"path": Path("b"), "numbers": [1, 2.5], "seed": 3, "states": states}
    assert function(numbers=(np.float32(0.5), 2))["numbers"] in ([0.5, 2], (0.5, 2))
    assert function(numbers=torch.tensor([0.5]))["numbers"] == [0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": 5}, "path=5: expected a word or a path"),
        ({"numbers": "1"}, 'numbers="1": expected a list, each item a finite number'),
        ({"numbers": [1, None]}, r"numbers\[1\]=null: expected a finite number"),
        ({"seed": -1}, "seed=-1: expected a whole number at least 0"),
        ({"kind": "al\nl"}, "kind=.*: expected all or each; did you mean all?"),
        ({"maps": "maps.npz"}, "maps is a str: expected nrmap.Maps"),
    ],
)
def test_a_misfit_is_one_line_with_its_name(arguments, message):
    with pytest.raises(NrmapError, match=f"^{message}") as caught:
        function(**arguments)
    assert str(caught.value).isprintable()


def test_public_functions_are_checked_and_keep_their_signatures():
    for name in ("attack", "certify", "collect_states", "compute_maps", "evaluate", "import_policy", "load_policy"):
        public = getattr(nrmap, name)
        (first, *_), wrong = inspect.signature(public).parameters, 7
        assert public.__doc__
        with pytest.raises(NrmapError, match=f"^{first}( is a int|=7): expected"):
            public(*[wrong] * (2 if name in ("attack", "certify", "compute_maps") else 1))
