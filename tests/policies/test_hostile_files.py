"""Files from strangers: no code in them runs, no size they claim is believed, and every complaint is one line."""

import io
import json
import os
import pickle
import subprocess
import tarfile
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from foreign_files import FOREIGN
from hypothesis import HealthCheck, given, settings
from mutations import damages, zipped
from torch import nn

import nrmap
from nrmap.policies.formats import FORMATS, convert, reading
from nrmap.policies.network import AtomSpec
from nrmap.policies.policy import load_policy
from nrmap.support.errors import NrmapError


class Command:
    """Pickled, a command that makes the file `path` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return subprocess.call, (["touch", str(self.path)],)


def torch_file(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def legacy_tar(content: bytes) -> bytes:
    """The oldest format of torch: a tar with pickles."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def planted(command: Command) -> dict[str, bytes]:
    """Files of all kinds, each with a command planted in it."""
    raw, saved = pickle.dumps(command), torch_file({"model_state_dict": {"cnn.0.weight": command}, "step": command})
    serialized = {":type:": "<class 'dict'>", ":serialized:": __import__("base64").b64encode(raw).decode()}
    data = json.dumps({"policy_class": serialized, "observation_space": serialized}).encode()
    yaml = f"!!python/object/apply:subprocess.call [[touch, {command.path}]]\n".encode()
    net = nn.Linear(2, 2)
    net.command = command
    return {
        "pickle": raw,
        "state dict": saved,
        "old torch file": pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + raw,
        "module": torch_file(net),
        "tar": legacy_tar(raw),
        "sb3 zip with a state dict": zipped({"data": data, "policy.pth": saved}),
        "sb3 zip with a pickle": zipped({"data": data, "policy.pth": raw}),
        "sb3 zip with other pickles": zipped({"data": data, "policy.pth": b"", "pytorch_variables.pth": saved}),
        "yaml": yaml,
        "safetensors": b"\x08\0\0\0\0\0\0\0" + raw,
    }


def nested() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prototype of torch
        return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


@pytest.mark.parametrize("kind", planted(Command(Path("x"))))
def test_a_planted_command_does_not_run(kind: str, tmp_path: Path) -> None:
    sign = tmp_path / "it_ran"
    path = tmp_path / "file"
    path.write_bytes(planted(Command(sign))[kind])
    for format_ in FORMATS:
        with pytest.raises(NrmapError) as caught:
            nrmap.import_policy(f"{format_}:{path}", "Pong", input_scale=1 / 255, outputs=tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(NrmapError):
        load_policy(path)
    assert not sign.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011 (the command is real: whatever unpickles it runs it)
        pickle.loads(pickle.dumps(Command(sign))).x  # noqa: B018
    assert sign.exists()


def test_a_file_whose_parts_share_parts_is_refused_as_fast_as_another(tmp_path: Path) -> None:
    foreign = FOREIGN["radial"]()
    foreign.save(tmp_path / "agent")
    content = torch.load(tmp_path / "agent")
    step: object = []
    for _ in range(50):
        step = [step, step]
    torch.save({**content, "step": OrderedDict(step=step)}, tmp_path / "agent")
    with pytest.raises(NrmapError, match=r"\{'step': \[\[\.\.\."):
        convert(f"radial:{tmp_path / 'agent'}", game=foreign.game, **foreign.options)


def test_archives_that_lead_outside_or_explode_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent.zip"
    for name in ("../evil.pth", "/tmp/evil", "a/../../evil", "..\\evil"):
        path.write_bytes(zipped({name: b"x"}))
        with pytest.raises(NrmapError, match="leads out of the archive"):
            convert(f"sb3:{path}", game="Pong")
    monkeypatch.setattr(reading, "MOST_BYTES", 10**6)
    bomb = zipped({"policy.pth": bytes(10**6), "data": bytes(10**6)})
    assert len(bomb) < 10**4
    for format_ in ("sb3", "cleanrl"):
        path.write_bytes(bomb)
        with pytest.raises(NrmapError, match="unpacks to 2,000,000 bytes"):
            convert(f"{format_}:{path}", game="Pong")
    path.write_bytes(bytes(10**6 + 1))
    with pytest.raises(NrmapError, match="has more than 1,000,000 bytes"):
        convert(f"sb3:{path}", game="Pong")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tensors: {**tensors, "network.0.weight": torch.zeros(1).expand(10**6, 10**6)}, "more numbers than"),
        (lambda tensors: {**tensors, "network.7.weight_sigma": torch.zeros(3)}, "NoisyNet"),
        (lambda tensors: {**tensors, "network.1.running_mean": torch.zeros(3)}, "batch normalisation"),
        (lambda tensors: {**tensors, "lstm.weight": torch.zeros(3)}, "recurrent"),
        (lambda tensors: {**tensors, "network.9.weight": torch.zeros(5, 512)}, "5 outputs, 6 actions need 6"),
        (lambda tensors: {**tensors, "network.7.weight": torch.zeros(512, 7744)}, "without padding"),
        (lambda tensors: {**tensors, "network.2.weight": torch.zeros(64, 32, 5, 5)}, "convolutions with kernels"),
        (lambda tensors: {**tensors, "network.0.bias": torch.full([32], torch.nan)}, "NaN or infinite"),
        (lambda tensors: {name: tensor.double() for name, tensor in tensors.items()}, r"after model.float\(\)"),
        (lambda tensors: {**tensors, "network.0.bias": torch.zeros(32, dtype=torch.int64)}, "expected float32"),
        (lambda tensors: {**tensors, 3: torch.zeros(3)}, "expected a state dict"),
        (lambda tensors: {**tensors, "network.9.weight": torch.tensor(1.0)}, r"has shape \(\): expected 2 dimensions"),
        (lambda tensors: {**tensors, "network.9.weight": torch.zeros(6, 512, device="meta")}, "without values"),
        (lambda tensors: {**tensors, "atoms": torch.ones(9).byte().view(torch.float4_e2m1fn_x2)}, "at least two"),
        (lambda tensors: {**tensors, "network.9.bias": nested()}, "nested"),
        (lambda tensors: {**tensors, "a" * 10**6: torch.zeros(3)}, "layers that this format does not have"),
        (lambda tensors: {}, r"it has no network.0.weight"),
        (lambda tensors: [*tensors.values()], "holds a list: expected a state dict"),
    ],
)
def test_networks_that_cannot_be_described_are_named(change: Callable, why: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.pt"
    FOREIGN["cleanrl_dqn"]().save(path)
    torch.save(change(torch.load(path)), path)
    with pytest.raises(NrmapError, match=why) as caught:
        convert(f"cleanrl:{path}", game="Pong")
    assert len(str(caught.value)) < 1100


def test_facts_that_are_missing_or_contradict_the_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "agent.pt"
    FOREIGN["cleanrl_c51"]().save(path)
    assert convert(f"cleanrl:{path}").label == "Pong/cleanrl_c51/seed3"
    content = torch.load(path)
    del content["model_weights"]["atoms"]  # its args say them too
    torch.save(content, path)
    assert convert(f"cleanrl:{path}").network.spec.atoms == AtomSpec(51, -10.0, 10.0)
    for options, why in (
        ({"game": "Freeway"}, "env=Freeway: the file says PongNoFrameskip-v4"),
        ({"input_scale": 1.0}, "which is not done twice"),
        ({"env_settings": {"frame_stack": 1}}, "frame_stack=1: the file says 4"),
        ({"env_settings": {1: 2}}, "unknown env setting 1"),
        ({"env_settings": 5}, "env_settings=5: expected a dict"),
    ):
        with pytest.raises(NrmapError, match=why):
            convert(f"cleanrl:{path}", **options)
    for change, why in (
        ({"n_atoms": torch.inf}, "its args have no numbers"),
        ({"v_min": 10**400}, "its args have no numbers"),
        ({"v_min": -1e300}, "its args have no numbers"),
        ({"seed": 10**5000}, "torch cannot read it"),
        ({"env_id": 3}, "its game is 3: expected a name"),
    ):
        torch.save(content | {"args": content["args"] | change}, path)
        with pytest.raises(NrmapError, match=why):
            convert(f"cleanrl:{path}")
    FOREIGN["tianshou_dqn"]().save(path)
    for options, why in (({}, "add env=GAME"), ({"game": "Pong"}, "does not say how its states were scaled")):
        with pytest.raises(NrmapError, match=why):
            convert(f"tianshou:{path}", **options)
    for scale in (0, -1, True, float("nan"), float("inf"), "1/255"):
        with pytest.raises(NrmapError, match=r"input_scale=.*: expected a finite number above 0"):
            convert(f"tianshou:{path}", game="Pong", input_scale=scale)
    with pytest.raises(NrmapError, match="unknown policy format 'sb4': did you mean sb3"):
        convert("sb4:x.zip")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NrmapError, match="expected a regular file"):
        convert(f"pfrl:{tmp_path / 'pipe'}", game="Pong")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc")
def test_a_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(NrmapError, match="cannot read /proc/self/mem"):
        convert("pfrl:/proc/self/mem", game="Pong")


@pytest.mark.parametrize(
    ("name", "rounds"),
    [
        *((name, 8) for name in ("sb3_dqn", "radial", "cleanrl_c51", "pfrl_dqn with one bias", "tianshou_qrdqn")),
        *(pytest.param(name, 80, marks=[pytest.mark.fuzz, pytest.mark.slow]) for name in FOREIGN),
    ],
)
def test_mutated_files_are_read_or_refused_in_one_line(name: str, rounds: int, tmp_path: Path) -> None:
    foreign = FOREIGN[name]()
    foreign.save(tmp_path / "agent")
    (path,) = tmp_path.iterdir()  # of sb3 with a suffix
    read = partial(convert, f"{foreign.format}:{path}", game=foreign.game, **foreign.options)
    read()
    whole = path.read_bytes()

    @settings(max_examples=rounds, suppress_health_check=list(HealthCheck))
    @given(damages(len(whole)))
    def is_read_or_refused(damage: Callable[[bytes], bytes]) -> None:
        path.write_bytes(damage(whole))
        try:
            read()
        except NrmapError as error:
            assert "\n" not in str(error)  # noqa: PT017

    is_read_or_refused()
