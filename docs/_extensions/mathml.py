"""Formulas as MathML, which browsers draw themselves: no script and no network."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

ALIASES = {
    r"\\dots\b": r"\\ldots",
    r"\\(big|Big|bigg|Bigg)(?![a-zA-Z])": r"\\\1l",
    r"\\texttt\b": r"\\mathtt",
    r"\\[td]frac\b": r"\\frac",
}
"""Commands that docutils does not know, and those that it knows in their place."""

logger = logging.getLogger(__name__)


def _convert(node: nodes.Element, *, block: bool) -> str:
    latex = node.astext()
    for command, known in ALIASES.items():
        latex = re.sub(command, known, latex)
    try:
        return tex2mathml(latex, as_block=block)
    except MathError as error:
        logger.warning("this formula cannot be written as MathML (%s): %s", error, latex, location=node)
        return f"<code>{escape(latex)}</code>"


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(f'<span class="math">{_convert(node, block=False)}</span>')
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math-block") + _convert(node, block=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer ``"mathml"``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
