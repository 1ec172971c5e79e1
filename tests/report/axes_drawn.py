"""A panel drawn on an Axes of its own, and the lines there."""

from matplotlib.figure import Figure


def drawn(panel):
    panel.draw(ax := Figure().subplots())
    return ax


def lines_of(ax):
    """The data lines of an Axes as (x, y), without those of marks."""
    return [line.get_xydata().T for line in ax.get_lines() if len(line.get_xydata()) > 1]


def marks_of(ax, label=""):
    """The x of every point and vertical line of an Axes whose label begins with `label`."""
    return [line.get_xdata()[0] for line in ax.get_lines() if line.get_label().startswith(label)]


def y_labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]
