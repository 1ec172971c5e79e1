"""The maps of one game on the page: figures 1 and 2 first, the others, controls, and maps over the game."""

from collections.abc import Sequence
from html import escape

from analyze.report.figure_files import Sheet, panel_bytes
from analyze.report.figures import BY_TEMPERATURE, kind_title
from analyze.report.gallery import NOT_MEASURED, MapSet, by_states, gallery, kinds_gallery, one_of_each_kind
from analyze.report.html import details, image
from analyze.report.names import is_control
from analyze.report.tables import headline_temperature
from nrmap.support.records import Record

_SCREEN_DPI = 110


def map_section(records: Sequence[Record], sets: Sequence[MapSet], overlays: Sequence[Sheet]) -> str:
    """Figures 1 and 2 first, then the other kinds of maps; other temperatures and states on demand."""
    if not sets:
        return ""
    headline = headline_temperature(records)
    temperatures = sorted({t for one in sets for t in one.total.temperatures})
    blocks = [
        "<h3>Maps</h3>",
        "<p>Every map has a colour scale of its own; its smallest and largest value stand under it.</p>",
    ]
    trained = [one for one in sets if not is_control(one.method)]
    for index, (states, group) in enumerate(by_states(trained).items()):
        figures = [_galleries(group, headline)]
        for temperature in temperatures:
            if temperature != headline:
                heads = [kind_title(kind, temperature) for kind in BY_TEMPERATURE]
                maps = [gallery(group, kind, temperature) for kind in BY_TEMPERATURE]
                others = _pair(heads[0], maps[0], heads[1], maps[1])
                figures.append(details(f"HMAP and KL map at T = {temperature:g}", others))
        title = f"{states[0].upper()}{states[1:]}"
        body = "\n".join(figures)
        blocks.append(f"<h4>{escape(title)}</h4>\n{body}" if index == 0 else details(title, body))
    kinds = one_of_each_kind(sets)
    if kinds:
        (states,) = by_states(kinds)
        beside = " beside networks that have learned nothing" if any(is_control(one.method) for one in kinds) else ""
        about = f"One policy of every kind{beside}: {states}."
        blocks.append(
            f"<h4>All kinds of agents side by side</h4>\n<p>{escape(about)}</p>\n{kinds_gallery(kinds, headline)}"
        )
    controls = [one for one in sets if is_control(one.method)]
    for states, group in by_states(controls).items():
        blocks.append(details(f"Every draw of every control: {states}", _galleries(group, headline)))
    for sheet in overlays:
        pictures = (
            image(panel_bytes(panel, sheet.panel_size, "png", _SCREEN_DPI), "png", panel.alt) if panel else NOT_MEASURED
            for panel in sheet.panels
        )
        blocks.append(f"<h3>Maps over the game</h3>\n<p>{escape(sheet.caption)}</p>")
        screens = "\n".join(pictures)
        grid = f'<div class="screens" style="--methods: {sheet.columns}">'
        blocks.append(f'<div class="scroll">{grid}\n{screens}\n</div></div>')
    return "\n".join(blocks)


def _galleries(sets: Sequence[MapSet], temperature: float | None) -> str:
    """Figures 1 and 2 of the paper, and the two kinds of maps that are defined for every agent."""
    first = _pair(
        f"Figure 1. {kind_title('kmap', None)}",
        gallery(sets, "kmap", None),
        f"Figure 2. {kind_title('hmap', temperature)}",
        gallery(sets, "hmap", temperature),
    )
    second = _pair(
        kind_title("kl", temperature),
        gallery(sets, "kl", temperature),
        f"{kind_title('margin_drop', None)}, white at 0",
        gallery(sets, "margin_drop", None),
    )
    return f"{first}\n{second}"


def _pair(first_title: str, first: str, second_title: str, second: str) -> str:
    """Two galleries, beside each other where there is room."""
    return (
        f'<div class="pair"><div><h4>{escape(first_title)}</h4>\n{first}</div>\n'
        f"<div><h4>{escape(second_title)}</h4>\n{second}</div></div>"
    )
