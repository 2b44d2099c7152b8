"""How every picture looks: sizes, colours, line styles and markers.

The colours of the token types are those of Okabe and Ito, moved to lightnesses (CIE L*) that rise in equal steps, so
that they stay apart in greyscale and to the colour-blind; each type also has a marker and a line style of its own.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt

from depthflow.schema import CLS, DISTILLATION, MEAN, PAD, PATCH, REGISTER, TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from matplotlib.axes import Axes

COLUMN = 3.4
"""Width of a single column of a paper, in inches."""

RC: Mapping[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.handlelength": 2.4,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "figure.dpi": 200,
}

INK, GREY, PALE = "#181818", "#8a8a8a", "#d9d9d9"
SEQUENTIAL = "viridis"
LINE_WIDTH, NULL_WIDTH, MARKER_SIZE = 1.3, 1.0, 3.2
NULL_DASHES = (0, (4, 2))


class Style(NamedTuple):
    """Three channels that tell a group apart, any one of which is enough."""

    color: str
    linestyle: Any
    marker: str


TOKEN_STYLES: Mapping[str, Style] = {
    TOKEN: Style(INK, "-", "o"),
    CLS: Style("#013c61", "-", "o"),
    REGISTER: Style("#914370", (0, (5, 1, 1, 1)), "^"),
    DISTILLATION: Style("#c75904", (0, (7, 1)), "D"),
    MEAN: Style("#1aa77b", (0, (3, 1)), "v"),
    PATCH: Style("#e7a003", "-", "s"),
    PAD: Style("#8ed1fe", (0, (1, 1)), "X"),
}
"""In rising lightness."""

GROUP_COLORS = ("#0072b2", "#e69f00", "#914370", "#1aa77b", "#c75904", "#56b4e9", "#181818")
GROUP_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">")
MAX_GROUPS = 20


def group_style(index: int) -> Style:
    """Return the style of group ``index``: colours repeat after 7, markers after 10, the pair after 70."""
    return Style(GROUP_COLORS[index % len(GROUP_COLORS)], "-", GROUP_MARKERS[index % len(GROUP_MARKERS)])


@contextmanager
def canvas(ax: Axes | None, *, width: float = COLUMN, height: float = 2.4) -> Iterator[Axes]:
    """Yield ``ax`` as it is, under the caller's own settings, or the Axes of a new figure in depthflow's style."""
    if ax is not None:
        yield ax
        return
    with mpl.rc_context(dict(RC)):
        # The constrained layout that also judges the margins of Axes with a fixed aspect rightly.
        _, new = plt.subplots(figsize=(width, height), layout="compressed")
        # matplotlib makes most ticks when it draws, that is, after these settings have ended.
        new.tick_params(labelsize=RC["xtick.labelsize"], size=RC["xtick.major.size"], width=RC["xtick.major.width"])
        yield new
