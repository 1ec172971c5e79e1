"""Experiment tracking with Weights & Biases.

W&B holds a copy: every number is also in this project's own files. A failure here never changes,
stops or blocks the tracked work. Wrong settings are errors, found before the work starts.
Functions import wandb themselves, because the import takes a second.
"""

import contextlib
import errno
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from nrmap.support.errors import NrmapError, check, first_line, refused, unknown_choice
from nrmap.support.schema import Word, schema

log = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]
JobType = Literal["train", "analyze"]

X_AXIS = "agent_step"
INIT_TIMEOUT = 20  # seconds until a run that finds no server goes on offline
FINISH_TIMEOUT = 120  # seconds that the end of a run waits for its last uploads
FLUSH_INTERVAL = 5  # seconds of metrics that a kill can lose

# All values that W&B accepts in WANDB_MODE, including two old names.
_ENVIRONMENT_MODES: dict[str, Mode] = {
    "online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled",
}  # fmt: skip
_ProjectName = Annotated[
    str, Field(pattern=r"^[^/\\#?%:\x00-\x1f\x7f]{1,128}$", description="at most 128 letters without / \\ # ? % :")
]


@schema
class TrackingSpec:
    """Settings of W&B. `decide_mode` resolves `auto`: WANDB_MODE, else online with an API key and offline without.

    `entity` is the account or team, None for W&B's default. `group` replaces the group that the caller of `track`
    gives, unless it is None. `tags` are added to the caller's. Raises NrmapError for an unknown mode, for a project
    name that W&B refuses, and for an entity, group or tag that is no word of 1 to 200 characters.
    """

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: _ProjectName = "nrmap"
    entity: Word | None = None
    group: Word | None = None
    tags: tuple[Word, ...] = ()


class Tracker:
    """Sends one run's metrics, tables, images and files to W&B, or discards them if it has no `run`.

    No method raises. The first failure is logged in one line.
    """

    def __init__(self, run: Any | None = None) -> None:
        """`run` comes from `wandb.init`; None discards everything."""
        self._run = run
        self._has_failed = False

    @property
    def is_active(self) -> bool:
        """Whether there is a run to send to."""
        return self._run is not None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a point at agent step `step` to each curve in `metrics`; W&B drops points whose steps do not increase.

        The agent step is also W&B's own step, so a resumed online run repeats no points.
        """
        self._attempt(lambda run: run.log({**metrics, X_AXIS: step}, step=step))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set final values by name; later values replace earlier ones."""
        self._attempt(lambda run: run.summary.update(dict(values)))

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add a table. All values in a column must have one type, or be None."""
        self._log_media(name, lambda wandb: wandb.Table(columns=list(columns), data=[list(row) for row in rows]))

    def image(self, name: str, file: Path) -> None:
        """Add an image from `file`, such as a PNG."""
        self._log_media(name, lambda wandb: wandb.Image(str(file)))

    def artifact(self, name: str, kind: str, files: Sequence[Path]) -> None:
        """Add a version of the artifact `name`, of W&B's type `kind`, with copies of `files` made now.

        Characters of `name` that W&B refuses become `-`.
        """

        def send(run: Any) -> None:
            artifact = _import_wandb().Artifact(re.sub(r"[^\w.-]+", "-", name), kind)
            for file in files:
                artifact.add_file(str(file), skip_cache=True)
            run.log_artifact(artifact)

        self._attempt(send)

    def finish(self, exit_code: int) -> None:
        """End the run: 0 marks it as finished, any other code as failed."""
        if not self._attempt(lambda run: run.finish(exit_code=exit_code)):
            _tear_down()

    def _log_media(self, name: str, make: Callable[[Any], Any]) -> None:
        # commit=False adds it to the current step; a step of its own would displace the next log().
        self._attempt(lambda run: run.log({name: make(_import_wandb())}, commit=False))

    def _attempt(self, action: Callable[[Any], object]) -> bool:
        """Call `action` with the run, if there is one; return False if it failed."""
        if self._run is None:
            return True
        try:
            action(self._run)
        except Exception as error:
            if not self._has_failed:
                what = f"{type(error).__name__}: {first_line(error)}"
                log.warning("tracking failed (%s): the work goes on, but its copy at W&B may be incomplete", what)
            self._has_failed = True
            return False
        return True


def summary_name(
    metric: str, *, attack: str | None = None, attack_epsilon: float | None = None, temperature: float | None = None
) -> str:
    """Return the name of a value in a run's summary: `kmap_sparsity`, `hmap_sparsity_T0p1`, `flip_rate_fgsm_eps0p01`.

    What is added to `metric` has only letters, digits and underscores: W&B cannot sort or filter by other names. None
    adds nothing.
    """
    name = metric if attack is None else metric + "_" + re.sub(r"\W", "_", attack)
    for prefix, number in (("eps", attack_epsilon), ("T", temperature)):
        if number is not None:
            name += f"_{prefix}{number:.3g}".replace(".", "p").replace("-", "m").replace("+", "")
    return name


def has_credentials() -> bool:
    """Whether W&B finds a well-formed API key (WANDB_API_KEY, its settings or .netrc).

    Neither prompts nor uses the network. A failed look-up is logged and counts as no key.
    Raises NrmapError if wandb cannot be imported.
    """
    wandb = _import_wandb()
    # A login that greets the user looks up the account over the network.
    with _environment_defaults(WANDB_SILENT="true"):
        try:
            return bool(wandb.login(prompt=False, verify=False))
        except Exception as error:
            log.warning("W&B: %s", first_line(error))
            return False


def decide_mode(spec: TrackingSpec, environ: Mapping[str, str]) -> Mode:
    """Return the mode of `spec`, with `auto` resolved.

    `auto` is WANDB_MODE if `environ` has it, else online with an API key and offline without. Without wandb and
    WANDB_MODE, `auto` becomes `disabled`, with a warning. Never prompts or uses the network. Raises NrmapError for an
    unknown WANDB_MODE, and for `online`, from either, without wandb or an API key.
    """
    mode = spec.mode
    if mode == "auto" and (named := environ.get("WANDB_MODE")):
        if named not in _ENVIRONMENT_MODES:
            raise unknown_choice("WANDB_MODE", named, get_args(Mode))
        mode = _ENVIRONMENT_MODES[named]
    if mode == "auto":
        try:
            return "online" if has_credentials() else "offline"
        except NrmapError as error:
            _warn(error)
            return "disabled"
    if mode == "online":
        # Without a key W&B prompts for one and waits for ever.
        expected = "run `wandb login`, set WANDB_API_KEY, or use wandb.mode=offline"
        check(has_credentials(), f"wandb.mode=online without a valid API key: {expected}")
    return mode


@contextlib.contextmanager
def track(
    spec: TrackingSpec,
    *,
    job_type: JobType,
    name: str,
    group: str,
    run_id: str,
    config: Mapping[str, Any],
    tags: Sequence[str],
    folder: Path,
) -> Iterator[Tracker]:
    """Yield a Tracker for one run with its W&B files under `folder`/wandb.

    A repeated `run_id` continues the same run, so derive it from the result's identity. `spec` may replace `group` and
    add to `tags`. The run ends as failed if the block raises. Without a connection at the start the run is kept
    offline. If it cannot start, because wandb is not installed or `folder` not writable, a warning is logged and the
    tracker discards everything. Raises NrmapError only where `decide_mode` does. During the block, WANDB_DATA_DIR and
    WANDB_CACHE_DIR are set if they were not; WANDB_SERVICE is removed for good.
    """
    mode = decide_mode(spec, os.environ)
    described = {
        "job_type": job_type, "name": name, "group": spec.group or group, "id": run_id, "config": dict(config),
        "tags": list(dict.fromkeys([*spec.tags, *tags])), "project": spec.project, "entity": spec.entity,
    }  # fmt: skip
    staging = folder / "wandb"  # by default in the home directory
    with _environment_defaults(WANDB_DATA_DIR=str(staging), WANDB_CACHE_DIR=str(staging / "cache")):
        tracker, exit_code = Tracker(), 1
        try:
            if mode != "disabled":
                tracker = Tracker(_start_run(mode, folder, described))
        except NrmapError as error:
            _warn(error)
        try:
            yield tracker
            exit_code = 0
        finally:
            tracker.finish(exit_code)


def _start_run(mode: Mode, folder: Path, described: Mapping[str, Any]) -> Any:
    """Start the run with the arguments `described` of `wandb.init`, and return it.

    Raises NrmapError if the run cannot start.
    """
    wandb = _import_wandb()
    with refused(f"cannot write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):  # W&B would silently use another folder
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    # A service process inherited from a parent dies with it, and refuses the ids of killed runs.
    os.environ.pop("WANDB_SERVICE", None)

    def init(mode: Mode) -> Any:
        settings = wandb.Settings(
            silent=True, console="off", x_disable_stats=True, init_timeout=INIT_TIMEOUT,
            finish_timeout=FINISH_TIMEOUT, x_transaction_log_flush_interval=FLUSH_INTERVAL,
        )  # fmt: skip
        # By default a second init in one process returns the first run.
        return wandb.init(mode=mode, resume="allow", reinit="create_new", dir=folder, settings=settings, **described)

    try:
        try:
            run = init(mode)
        except (wandb.errors.CommError, TimeoutError) as error:
            if mode == "offline":
                raise
            log.warning("W&B cannot be reached (%s): %s is kept offline", first_line(error), described["name"])
            _tear_down()  # its service process would refuse the same run id
            run = init("offline")
        if described["job_type"] == "train":
            run.define_metric(X_AXIS)
            run.define_metric("*", step_metric=X_AXIS)
    except Exception as error:
        raise NrmapError(f"W&B cannot start the run {described['id']} ({first_line(error)})") from error
    return run


def _import_wandb() -> Any:
    try:
        import wandb
    except Exception as error:  # a broken installation can raise anything
        raise NrmapError(f"wandb cannot be imported ({first_line(error)}); `make install` installs it") from error
    return wandb


def _tear_down() -> None:
    """Stop W&B's service process; the next run starts a new one."""
    with contextlib.suppress(Exception):
        _import_wandb().teardown()


@contextlib.contextmanager
def _environment_defaults(**defaults: str) -> Iterator[None]:
    """Set environment variables that are not set yet, for the duration of a block."""
    added = [name for name in defaults if name not in os.environ]
    os.environ.update({name: defaults[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _warn(error: NrmapError) -> None:
    log.warning("%s: the work goes on without W&B", error)
