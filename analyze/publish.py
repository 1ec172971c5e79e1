"""`python -m analyze.publish FOLDER …`: copy trained and evaluated policies to the reference policies.

Each FOLDER holds a finished training. Its policy, curves, settings, evaluation and baselines are
copied to a folder in outputs/reference/, with a README.md that describes the policy. Prints that folder.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from analyze.report.formats import to_markdown
from analyze.report.names import PolicyName
from analyze.report.results import flattened
from analyze.report.return_tables import action_table, q_gap_table, returns_table
from analyze.study import baselines_settings, evaluation_inputs
from conf.argument_parser import ArgumentParser
from conf.choices import group_options
from conf.command_line import results_folder, with_flag_outputs
from nrmap.learning.recorded import RecordedCurves, RecordedSettings
from nrmap.maps.measures import read_measured
from nrmap.policies.policy import Policy, load_policy
from nrmap.support.errors import NrmapError, check, errors_in_one_line, unknown_choice
from nrmap.support.files import atomic_path, identity_of, read_json, sha256_of_file, write_text
from nrmap.support.identity import stage_identity
from nrmap.support.layout import CARD_FILE, CURVES_FILE, METRICS_FILE, POLICY_FILE, SETTINGS_FILE, Layout
from nrmap.support.records import Record, read_metrics, read_records, select


def publish(folder: Path, layout: Layout, *, scale: str, replace: bool = False) -> Path:
    """Copy a finished training and its evaluation to the reference policies of `scale`; return the new folder.

    Of several evaluations, the one with the most records is taken; its baselines are copied if they exist. Writes
    README.md, see `card`. Raises NrmapError if the training is not finished or a file of it is damaged, if the policy
    was not evaluated, and if a file cannot be written. Without `replace`, also raises NrmapError if another policy is
    the reference policy of that scale, game, method and seed.
    """
    policy = load_policy(folder / POLICY_FILE)
    evaluation = _evaluation(policy, layout)
    target = layout.reference(scale=scale, game=policy.env.game, method=policy.card.method, seed=policy.card.seed)
    if (target / POLICY_FILE).is_file() and not replace:
        there = load_policy(target / POLICY_FILE).sha256
        check(there == policy.sha256, f"{target} holds another policy, {there}: give --replace to replace it")
    read_json(folder / CURVES_FILE, RecordedCurves)
    same = identity_of(read_json(folder / SETTINGS_FILE, RecordedSettings)) == identity_of(policy.card.settings)
    check(same, f"{folder / SETTINGS_FILE} holds other settings than the policy's card")
    copies = {target / name: folder / name for name in (POLICY_FILE, CURVES_FILE, SETTINGS_FILE)}
    copies[target / METRICS_FILE] = evaluation
    identity = stage_identity("baselines", **baselines_settings(policy.env, read_metrics(evaluation).settings))
    baselines = layout.baselines(game=policy.env.game, identity=identity) / METRICS_FILE
    if baselines.is_file():
        published = layout.reference_baselines(scale=scale, game=policy.env.game, identity=identity)
        copies[published / METRICS_FILE] = baselines
        read_records(baselines)
    for copy in copies:
        check(not copy.is_dir(), f"cannot write {copy}: it is a folder")
    for copy, source in copies.items():
        with atomic_path(copy) as temporary:
            shutil.copyfile(source, temporary)
    write_text(target / CARD_FILE, card(policy, read_records(evaluation), sha256_of_file(folder / POLICY_FILE)))
    return target


def _evaluation(policy: Policy, layout: Layout) -> Path:
    found = []
    for path in layout.evaluations(game=policy.env.game, method=policy.card.method, seed=policy.card.seed):
        with suppress(NrmapError):  # a damaged evaluation, perhaps of another policy
            measured = read_measured(path)
            if measured.inputs == evaluation_inputs(policy):
                found.append((len(measured.records), path))
    check(bool(found), f"{policy.label} has no evaluation under {layout.outputs}: run `python -m analyze policy=…`")
    return max(found)[1]


def card(policy: Policy, records: Sequence[Record], file_sha256: str) -> str:
    """Return a policy's card in Markdown: facts, settings, and returns, actions and Q-gaps from its `records`.

    `file_sha256` is the hash of the policy's file.
    """
    about = policy.card
    facts = {
        "agent steps": f"{about.agent_steps:,}",
        **{name.replace("_", " "): _shown(value) for name, value in about.results.items() if value is not None},
        "starts from": "scratch" if about.parent_sha256 is None else f"the policy {about.parent_sha256}",
        "settings' identity": about.identity,
        "SHA-256 of the policy": policy.sha256,
        f"SHA-256 of {POLICY_FILE}": file_sha256,
        "weights": f"float16, {_moment(about.settings)}; everything below was measured on the rounded weights",
        **flattened(about.provenance),
    }
    tables = [returns_table(records), action_table(records, policy.env.game), q_gap_table(records)]
    episodes = select(records, metric="return", attack="clean")
    parts = [
        f"# {policy.env.game}, {PolicyName(about.method).title}, seed {about.seed}",
        _bullets(facts),
        *(to_markdown(table).rstrip() for table in tables if table.rows),
        "## Every clean episode\n\n"
        + ", ".join("undefined" if record.value is None else f"{record.value:g}" for record in episodes),
        "## Recipe\n\n" + _bullets(flattened(about.settings)),
    ]
    return "\n\n".join(parts) + "\n"


def _moment(settings: Mapping[str, Any]) -> str:
    average_from = settings["learner"].get("average_from", 1.0)
    return "the last checkpoint" if average_from == 1 else f"the mean after {average_from:.0%} of the training"


def _shown(value: float | int | str | list[dict[str, float]]) -> str:
    if isinstance(value, list) and all(
        isinstance(one, dict) and {"agent_step", "back_to"} <= one.keys() for one in value
    ):
        roll_backs = (f"from {_shown(one['agent_step'])} to {_shown(one['back_to'])}" for one in value)
        return ", ".join(roll_backs) or "none"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _bullets(facts: Mapping[str, str | None]) -> str:
    return "\n".join(f"* {name}: {value}" for name, value in facts.items())


@errors_in_one_line()
def main() -> None:
    """Publish every folder on the command line and print its copy; an error prints one line, with exit status 2."""
    parser = ArgumentParser(prog="python -m analyze.publish", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of finished trainings")
    parser.add_argument("--scale", default="quick", help="scale of the trainings (default: quick)")
    parser.add_argument("--replace", action="store_true", help="overwrite other reference policies")
    parser.add_argument("--outputs", type=results_folder, default=Path("outputs"), help="also outputs=FOLDER")
    arguments = parser.parse_args(with_flag_outputs(sys.argv[1:]))
    scales = group_options("scale")
    if arguments.scale not in scales:
        raise unknown_choice("scale", arguments.scale, scales)
    for folder in arguments.folders:
        print(publish(folder, Layout(arguments.outputs), scale=arguments.scale, replace=arguments.replace))


if __name__ == "__main__":
    main()
