"""Pictures of the measures: a result in, a matplotlib ``Axes`` out.

Each function takes what the measure of the same name returns and draws it into ``ax``, or into a new figure of a
paper's single-column width. The names of the functions are not those of the files, so that no submodule can take a
function's place; matplotlib is loaded when the first of them is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
