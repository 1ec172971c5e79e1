"""A panel drawn on an Axes of its own, and the lines there."""

from matplotlib.figure import Figure

from analyze.report.sheets import Panel


def drawn(panel: Panel):
    ax = Figure().subplots()
    panel.draw(ax)
    return ax


def lines_of(ax):
    """The data lines of an Axes as (x, y), without those of marks."""
    return [line.get_xydata().T for line in ax.get_lines() if len(line.get_xydata()) > 1]


def y_labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]
