"""One Weights & Biases run; the only module that imports wandb, which takes a second."""

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nrmap.support.errors import NrmapError, check

log = logging.getLogger(__name__)

X_AXIS = "agent_step"
INIT_TIMEOUT = 20  # seconds until a run that finds no server goes on offline
FINISH_TIMEOUT = 120  # seconds that the end of a run waits for its last uploads
FLUSH_INTERVAL = 5  # seconds of metrics that a kill can cost


def has_credentials() -> bool:
    """Whether W&B finds an API key (WANDB_API_KEY, its settings or .netrc), without asking user or network.

    A key that W&B rejects for its form counts as none, and so does any other failure; both are
    logged. Raises NrmapError where wandb cannot be imported.
    """
    wandb = _import_wandb()
    # With the greeting that it otherwise prints, a login also looks up the account over the network.
    with _environment(WANDB_SILENT="true"):
        try:
            return bool(wandb.login(prompt=False, verify=False))
        except Exception as error:
            log.warning("W&B: %s", first_line(error))
            return False


class WandbTracker:
    """A Tracker that writes one W&B run. After `start` no method raises: the first failure is logged."""

    def __init__(self, wandb: Any, run: Any, folder: Path) -> None:
        """`run` is what `wandb.init` gave and `folder` where artifacts are staged; `start` makes both."""
        self._wandb = wandb
        self._run = run
        self._folder = folder
        self._has_failed = False

    @classmethod
    def start(
        cls,
        *,
        mode: Literal["online", "offline"],
        project: str,
        entity: str | None,
        job_type: str,
        name: str,
        group: str,
        run_id: str,
        config: Mapping[str, Any],
        tags: list[str],
        folder: Path,
    ) -> "WandbTracker":
        """Begin the run `run_id`, or go on with it; see nrmap.support.tracking.track.

        `online` needs an API key. Raises NrmapError where there is no wandb, `folder` cannot be
        written, or W&B cannot start the run.
        """
        wandb = _import_wandb()
        _make_writable(folder)
        # A parent's service process, if inherited, would die with it and refuse the run ids of killed siblings.
        os.environ.pop("WANDB_SERVICE", None)

        def init(mode: str) -> Any:
            settings = wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                init_timeout=INIT_TIMEOUT,
                finish_timeout=FINISH_TIMEOUT,
                x_transaction_log_flush_interval=FLUSH_INTERVAL,
            )
            with _beside(folder):
                return wandb.init(
                    mode=mode,
                    project=project,
                    entity=entity,
                    job_type=job_type,
                    name=name,
                    group=group,
                    id=run_id,
                    resume="allow",
                    # By default a second run in this process would be the first one again.
                    reinit="create_new",
                    config=dict(config),
                    tags=tags,
                    dir=folder,
                    settings=settings,
                )

        try:
            try:
                run = init(mode)
            except (wandb.errors.CommError, TimeoutError) as error:
                if mode == "offline":
                    raise
                log.warning("W&B cannot be reached (%s): %s is kept offline", first_line(error), name)
                # Its service process still holds the run id, and refuses it a second time.
                wandb.teardown()
                run = init("offline")
            if job_type == "train":
                run.define_metric(X_AXIS)
                run.define_metric("*", step_metric=X_AXIS)
        except Exception as error:
            raise NrmapError(f"W&B cannot start the run {run_id} ({first_line(error)})") from error
        return cls(wandb, run, folder)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """See Tracker. The step is also W&B's own, so that a resumed run does not repeat points."""
        with self._tolerated():
            self._run.log({**metrics, X_AXIS: step}, step=step)

    def summary(self, values: Mapping[str, Any]) -> None:
        """See Tracker."""
        with self._tolerated():
            self._run.summary.update(dict(values))

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """See Tracker."""

        def make() -> Any:
            data = [list(row) for row in rows]
            for row in data:
                check(len(row) == len(columns), f"table {name}: {len(row)} values in a row for {len(columns)} columns")
            return self._wandb.Table(columns=list(columns), data=data)

        self._log_media(name, make)

    def image(self, name: str, image: Path | NDArray[np.uint8], caption: str | None = None) -> None:
        """See Tracker."""

        def make() -> Any:
            if isinstance(image, Path):
                check(image.is_file(), f"image {name}: no file {image}")
                return self._wandb.Image(str(image), caption=caption)
            drawable = image.dtype == np.uint8 and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3))
            check(drawable, f"image {name} is {image.dtype} {list(image.shape)}: expected uint8 [H, W] or [H, W, 3]")
            return self._wandb.Image(image, caption=caption)

        self._log_media(name, make)

    def artifact(
        self,
        name: str,
        type: str,
        files: Mapping[str, Path] | Sequence[Path],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """See Tracker."""
        with self._tolerated(), _beside(self._folder):
            named = dict(files) if isinstance(files, Mapping) else {path.name: path for path in files}
            for path in named.values():
                check(path.is_file(), f"artifact {name}: no file {path}")
            safe_name = re.sub(r"[^\w.-]+", "-", name)
            artifact = self._wandb.Artifact(safe_name, type, metadata=dict(metadata or {}))
            for name_inside, path in named.items():
                artifact.add_file(str(path), name=name_inside, skip_cache=True)
            self._run.log_artifact(artifact)

    def finish(self, exit_code: int) -> None:
        """End the run: with 0 as finished, otherwise as failed."""
        try:
            self._run.finish(exit_code=exit_code)
        except Exception as error:
            self._complain(error)
            # Its service process is gone. Forget it, or the next run of this process would look for it too.
            with contextlib.suppress(Exception):
                self._wandb.teardown()

    def _log_media(self, name: str, make: Callable[[], Any]) -> None:
        with self._tolerated(), _beside(self._folder):
            # Joined to the row of the current step; a row of its own would take the next step from log().
            self._run.log({name: make()}, commit=False)

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        """One line for the first failure of a run; the others would say the same again."""
        if not self._has_failed:
            log.warning(
                "tracking failed (%s: %s): the work goes on, but its copy at W&B may be incomplete",
                type(error).__name__,
                first_line(error),
            )
        self._has_failed = True


def _import_wandb() -> Any:
    try:
        import wandb
    except Exception as error:  # a broken installation raises whatever it is broken by
        raise NrmapError(f"wandb cannot be imported ({first_line(error)}); `make install` installs it") from error
    return wandb


def _make_writable(folder: Path) -> None:
    # W&B would go elsewhere without a word.
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NrmapError(f"cannot write {folder}: {error.strerror or error}") from error
    check(os.access(folder, os.W_OK), f"cannot write {folder}: permission denied")


@contextlib.contextmanager
def _environment(**defaults: str) -> Iterator[None]:
    """Environment variables for the length of a block; those that are set already stay as they are."""
    added = [name for name in defaults if name not in os.environ]
    os.environ.update({name: defaults[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _beside(folder: Path) -> Any:
    """Let W&B stage files under `folder`; by default they go to the home directory."""
    return _environment(WANDB_DATA_DIR=str(folder / "wandb"), WANDB_CACHE_DIR=str(folder / "wandb" / "cache"))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
