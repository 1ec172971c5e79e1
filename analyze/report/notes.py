"""Texts of the page: how to read it, and the list of deviations from the paper."""

import re
from dataclasses import dataclass
from pathlib import Path

from nrmap.support.errors import NrmapError

DEVIATIONS_FILE = Path(__file__).parents[2] / "docs" / "deviations.md"

READING = (
    "KMAP, K(i, j), is the drop in Q, summed over states, when the agent takes the action that it prefers with "
    "pixel (i, j) set to 0. HMAP, H(i, j), is the cross-entropy between its softmax policies with and without "
    "that pixel. Sparsity S is ‖M‖₁ / ‖M‖₂: 1 for a single pixel, 84 for a flat map of 84 × 84; smaller is sparser.",
    "S(K) grows with the number of states N, because a pixel counts once it flips any action. The paper gives "
    "neither N nor T. Compare methods at equal N, and expect the paper's order and ratio, not its digits.",
    "HMAP contains the entropy of the policy itself at every pixel, so its S is close to the maximum wherever the "
    "policy is not sharp. The KL map leaves that entropy out. An agent whose action no single pixel can flip has "
    "K = 0 everywhere. Then S(K) is undefined, and the margin-drop map, which needs no flip, is the one to compare.",
    "Square brackets are 95% intervals over episodes, for this policy. They do not say how much another training run "
    "would differ: compare the seeds for that. To compare two methods, read the table of differences, which has its "
    "own intervals. Two single intervals that overlap do not settle it.",
    "Comparing two settings: policies of one method that were trained with different settings are different methods "
    "here, with the setting in brackets, such as `SA-DDQN (kappa=0.02)`. Every table and chart shows them "
    "side by side. Analyses that differ in a setting are told apart in the same way, such as `own states (value=128)`. "
    "Temperatures of a sweep have rows of their own in “Sparsity of all kinds of maps”, and a chart.",
)

NOTHING = (
    "There are no results under this outputs folder yet.",
    "`make reproduce` trains the agents, draws their maps and builds this page again. "
    "`make maps` maps the policies that come with the project, without any training.",
)


@dataclass(frozen=True)
class Deviation:
    """One deviation from the paper, and its effect on the conclusions."""

    title: str
    text: str
    effect: str


_ENTRY = re.compile(
    r"^\d+\. \*\*(?P<title>.+)\*\*\n(?P<text>(?: .+\n)+?) +\*Effect on the conclusions:\* (?P<effect>.+\n(?: .+\n)*)",
    re.MULTILINE,
)


def deviations() -> list[Deviation]:
    """The entries of docs/deviations.md in order. Raises NrmapError outside a clone, which alone has that file."""
    try:
        text = DEVIATIONS_FILE.read_text(encoding="utf-8")
    except OSError as error:
        raise NrmapError(f"cannot read {DEVIATIONS_FILE}: {error.strerror}; the report needs a clone") from error
    return [
        Deviation(*(" ".join(entry[name].split()) for name in ("title", "text", "effect")))
        for entry in _ENTRY.finditer(text)
    ]
