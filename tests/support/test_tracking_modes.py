"""Which mode a run is tracked in, and what of it is a mistake that is told at once."""

import time

import pytest
import wandb
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from wandb_files import KEY, forget_account, tracked

from nrmap.support.errors import NrmapError
from nrmap.support.tracking import TrackingSpec, decide_mode


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path_factory):
    """A user whom W&B does not know; returns the home folder."""
    home = tmp_path_factory.mktemp("home")
    forget_account(monkeypatch, home)
    return home


@pytest.fixture
def own_session(no_account):
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.parametrize(
    ("setting", "wandb_mode", "has_key", "expected"),
    [
        ("online", "disabled", True, "online"),
        ("offline", "online", True, "offline"),
        ("disabled", "online", True, "disabled"),
        ("auto", "online", True, "online"),
        ("auto", "run", True, "online"),
        ("auto", "offline", True, "offline"),
        ("auto", "dryrun", True, "offline"),
        ("auto", "disabled", True, "disabled"),
        ("auto", "", True, "online"),
        ("auto", None, True, "online"),
        ("auto", None, False, "offline"),
    ],
)
def test_setting_then_environment_then_key(monkeypatch, setting, wandb_mode, has_key, expected):
    asked = []

    def login(**arguments):
        asked.append(arguments)
        return has_key

    monkeypatch.setattr("wandb.login", login)
    environ = {} if wandb_mode is None else {"WANDB_MODE": wandb_mode}
    assert decide_mode(TrackingSpec(mode=setting), environ) == expected
    needs_login = expected == "online" or (setting == "auto" and not wandb_mode)
    assert asked == ([{"prompt": False, "verify": False}] if needs_login else [])


@pytest.mark.parametrize(("setting", "wandb_mode"), [("online", None), ("auto", "online")])
def test_online_without_a_key_is_told_before_there_is_any_work(monkeypatch, tmp_path, setting, wandb_mode):
    monkeypatch.setattr("wandb.login", lambda **arguments: False)
    environ = {} if wandb_mode is None else {"WANDB_MODE": wandb_mode}
    with pytest.raises(NrmapError, match=r"^wandb\.mode=online without a valid API key"):
        decide_mode(TrackingSpec(mode=setting), environ)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NrmapError, match="without a valid API key"):
        tracked(tmp_path, TrackingSpec(mode=setting)).__enter__()
    assert [*tmp_path.iterdir()] == []


def test_whatever_fails_while_looking_for_a_key_counts_as_none(monkeypatch, caplog):
    def fail(**arguments):
        raise OSError("the .netrc cannot be read\nand more")

    monkeypatch.setattr("wandb.login", fail)
    assert decide_mode(TrackingSpec(), {}) == "offline"
    assert caplog.messages == ["W&B: the .netrc cannot be read"]


def test_a_key_is_found_where_users_keep_it(monkeypatch, no_account, own_session):
    monkeypatch.setenv("WANDB_BASE_URL", "http://192.0.2.1")  # reserved: nothing answers there
    began = time.monotonic()
    assert decide_mode(TrackingSpec(), {}) == "offline"
    (no_account / ".netrc").write_text(f"machine 192.0.2.1\n  login user\n  password {KEY}\n")
    (no_account / ".netrc").chmod(0o600)
    wandb.teardown()
    assert decide_mode(TrackingSpec(), {}) == "online"
    (no_account / ".netrc").unlink()
    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert decide_mode(TrackingSpec(), {}) == "online"
    assert time.monotonic() - began < 5, "deciding the mode waited for the network"


def test_a_mistyped_key_counts_as_none(monkeypatch, caplog, own_session):
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert decide_mode(TrackingSpec(), {}) == "offline"
    assert len(caplog.messages) == 1
    assert "WANDB_API_KEY invalid" in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrackingSpec(mode="ofline"), "unknown wandb.mode 'ofline': did you mean offline"),
        (lambda: TrackingSpec(project="a/b"), "wandb.project='a/b': expected a name without"),
        (lambda: TrackingSpec(project=""), "wandb.project='': expected a name"),
        (lambda: TrackingSpec(tags="one"), "wandb.tags='one': expected a list of words"),
        (lambda: decide_mode(TrackingSpec(), {"WANDB_MODE": "on"}), "unknown WANDB_MODE 'on'"),
    ],
)
def test_a_bad_setting_is_one_line(make, message):
    with pytest.raises(NrmapError) as caught:
        make()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "mode"),
    [
        (["+wandb=auto"], "auto"),
        (["+wandb=online"], "online"),
        (["+wandb=offline"], "offline"),
        (["+wandb=disabled"], "disabled"),
        (["+wandb=auto", "wandb.mode=disabled"], "disabled"),
    ],
)
def test_every_yaml_is_a_spec(overrides, mode):
    with initialize_config_module("conf", version_base="1.3"):
        values = OmegaConf.to_container(compose(overrides=overrides).wandb)
    assert TrackingSpec(**values) == TrackingSpec(mode=mode, tags=[])
