"""Arrays in, arrays out: the numerical kernels, in NumPy and Numba, which import nothing else of depthflow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={
        "angular",
        "bessel",
        "cosine",
        "lowrank",
        "resultant",
        "running",
        "segment",
        "similarity",
        "sphere",
        "tangent",
    },
)
