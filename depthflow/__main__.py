"""``python -m depthflow``, as torchrun starts it."""

from depthflow.cli import main

main()
