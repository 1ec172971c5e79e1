"""One process holds a lock at a time; the others name the holder and wait, but not for ever."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from nrmap.support import locks
from nrmap.support.errors import NrmapError
from nrmap.support.files import read_json
from nrmap.support.locks import Holder, locked


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    return tmp_path / "folder" / "lock"


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.EPERM, "Operation not permitted")))


@pytest.fixture(params=["flock", "none"])
def _with_and_without_locks(request: pytest.FixtureRequest) -> None:
    if request.param == "none":
        request.getfixturevalue("without_locks")


@pytest.mark.usefixtures("_with_and_without_locks")
def test_a_second_holder_waits_for_the_first_and_says_who_that_is(lock: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    order = []

    def second() -> None:
        with locked(lock, "waiting for it"):
            order.append("second")

    with locked(lock, "never said"):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 60
        while not any("waiting for it" in line for line in caplog.messages) and time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("first")
    thread.join(timeout=60)
    assert order == ["first", "second"]
    (said,) = [line for line in caplog.messages if "waiting for it" in line]
    assert f"held by process {os.getpid()} on {socket.gethostname()} since 20" in said
    assert f"to take the lock remove {lock}" in said


@pytest.mark.usefixtures("_with_and_without_locks")
def test_the_lock_of_a_killed_process_is_free(lock: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from nrmap.support.locks import locked\n"
        "with locked(Path(sys.argv[1]), ''): os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(lock)], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -9
    assert read_json(lock, Holder).is_dead
    lock.with_name("lock.held").write_text(lock.read_text())  # the process would leave it if there were no locks
    with locked(lock, "never said"):
        assert os.getpid() in [read_json(path, Holder).pid for path in lock.parent.iterdir()]


def test_a_lock_of_another_host_is_waited_for_until_it_is_silent_too_long(lock: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(locks, "MOST_SILENT_SECONDS", 0.2)
    lock.parent.mkdir()
    with open(lock, "w") as file:
        file.write(json.dumps({"host": "elsewhere", "pid": 1, "since": "2026-01-01T00:00:00+00:00"}))
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        expected = f"{lock} is held by process 1 on elsewhere since 2026-01-01T00:00:00+00:00, no sign of life"
        with pytest.raises(NrmapError, match=expected.replace("+", r"\+")), locked(lock, "waiting"):
            pass
        lock.unlink()  # takes the lock
        with locked(lock, "never said"):
            assert read_json(lock, Holder).is_here


def test_a_file_system_without_locks_is_said_once_and_nothing_stays(
    lock: Path, without_locks: None, caplog: Any
) -> None:
    for _ in range(2):
        with locked(lock, "waiting"):
            assert lock.with_name("lock.held").exists()
    assert [path.name for path in lock.parent.iterdir()] == ["lock"]
    assert caplog.messages == [f"{lock.parent}: no locks on this file system; files that end in .held take their place"]


@pytest.mark.usefixtures("without_locks")
def test_a_lock_that_was_taken_away_is_not_released_twice(lock: Path) -> None:
    first, second, held = locked(lock, "never said"), locked(lock, "never said"), lock.with_name("lock.held")
    first.__enter__()
    held.unlink()  # as the message says, to take the lock
    second.__enter__()
    first.__exit__(None, None, None)
    assert held.exists()
    second.__exit__(None, None, None)
    assert not held.exists()


def test_a_link_and_a_path_that_no_file_can_have_are_refused(lock: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    lock.parent.mkdir()
    lock.symlink_to(target)
    with pytest.raises(NrmapError, match=f"cannot lock {lock}: it is a symbolic link"), locked(lock, "waiting"):
        pass
    assert target.read_text() == "mine"
    for name in ("\0", "x" * 300):
        with pytest.raises(NrmapError, match="cannot write "), locked(tmp_path / name / "lock", "waiting"):
            pass


def test_a_holder_gives_signs_of_life(lock: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(locks, "SIGN_OF_LIFE_SECONDS", 0.01)
    with locked(lock, "waiting"):
        os.utime(lock, (0, 0))
        deadline = time.monotonic() + 60
        while lock.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock.stat().st_mtime > 0
