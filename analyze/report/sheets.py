"""Sheets of panels, as files (PDF for print, PNG for the screen) and as pictures inside the page.

Equal data gives equal bytes: no dates, no random names inside.
"""

import io
import math
import textwrap
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nrmap.support.files import write_bytes

PNG_DPI = 200
_SCREEN_DPI = 110
_MEDIA = {"svg": "image/svg+xml", "png": "image/png"}
_LETTERS_PER_INCH = 12
STYLE = Path(__file__).parent / "templates" / "report.mplstyle"
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


@dataclass(frozen=True)
class Panel:
    """One chart or map: `draw` draws it on an Axes, `alt` describes it in words."""

    draw: Callable[[Axes], None]
    alt: str


@dataclass(frozen=True)
class Sheet:
    """Panels in rows of `columns`, each of `panel_size` (width, height) in inches; None leaves a cell empty.

    `name` is the file name without ending. On the page, `title` is the heading, `folded` hides the sheet until a
    click, without `columns_fixed` a row has as many panels as fit, and pictures have `format` "svg" or "png".
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel | None, ...]
    columns: int
    panel_size: tuple[float, float]
    columns_fixed: bool = True
    folded: bool = False
    format: str = "svg"


def save_sheet(sheet: Sheet, folder: Path) -> Path:
    """Write the sheet, of at least one panel, to `folder` as PDF and PNG, atomically; return the PNG's path.

    Raises NrmapError if a file cannot be written.
    """
    rows = math.ceil(len(sheet.panels) / sheet.columns)
    width, height = sheet.panel_size
    columns = min(sheet.columns, len(sheet.panels))
    with mpl.rc_context(fname=STYLE):
        figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, ax in zip_longest(sheet.panels, axes):
            if panel is None:
                ax.remove()
            else:
                panel.draw(ax)
        text = f"{sheet.title}. {sheet.caption}".removesuffix(" ")
        caption = textwrap.fill(text, width=max(round(_LETTERS_PER_INCH * columns * width), 20))
        figure.suptitle(caption, x=0.01, horizontalalignment="left", fontsize="medium")
        return save_figure(figure, folder / f"{sheet.name}.png")


def save_figure(figure: Figure, path: Path) -> Path:
    """Write `figure` to the PNG file `path`, and as PDF beside that; return `path`.

    Raises NrmapError if a file cannot be written.
    """
    with mpl.rc_context(fname=STYLE):
        figure.draw_without_rendering()  # lays out the panels, once for both files
        figure.set_layout_engine(None)
        for ending in ("pdf", "png"):
            write_bytes(path.with_suffix(f".{ending}"), _bytes(figure, ending, PNG_DPI))
    return path


def picture(sheet: Sheet, panel: Panel) -> str:
    """Draw one panel of the sheet and return it as a data URI."""
    with mpl.rc_context(fname=STYLE):
        figure = Figure(figsize=sheet.panel_size, layout="constrained")
        panel.draw(figure.subplots())
        content = b64encode(_bytes(figure, sheet.format, _SCREEN_DPI)).decode()
    return f"data:{_MEDIA[sheet.format]};base64,{content}"


def _bytes(figure: Figure, kind: str, dpi: int) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=dpi, metadata=_METADATA[kind])
    return content.getvalue()
