"""Read a transformer's forward pass as a dynamical system: depth is time, the residual stream is the state.

>>> import depthflow
>>> data = depthflow.datasets.digits("test")
>>> traj = depthflow.record(depthflow.datasets.digits_vit(), data.images, labels=data.labels, progress=False)
>>> dict(traj.sizes)
{'sample': 360, 'depth': 13, 'token': 17, 'feature': 64}

Names load on first use: importing the package loads neither torch nor numba nor matplotlib.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
