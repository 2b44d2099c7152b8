"""Tiny models run fastest on one thread: handing work out costs more than doing it.

Importing the fixture into a test module, or a conftest, applies it there.
"""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
