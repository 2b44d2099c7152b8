"""The embedded default: real handwritten digits and a vision transformer trained on them.

Everything here works offline: the images come with scikit-learn, the weights with this package.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depthflow.errors import ParameterError

if TYPE_CHECKING:
    from depthflow.models.vit import VisionTransformer
    from depthflow.surrogate.recurrent import RecurrentSurrogate

SPLITS = ("all", "train", "test")
TEST_SHARE = 0.2


class Digits(NamedTuple):
    """Images (sample, channel, row, column) in [0, 1], their labels (sample,), and each one's split (sample,)."""

    images: np.ndarray
    labels: np.ndarray
    split: np.ndarray


def digits(split: str = "all") -> Digits:
    """Return scikit-learn's 1,797 real handwritten digits, with a fixed stratified split.

    Parameters
    ----------
    split : {"all", "train", "test"}
        Which images: all 1,797, the 1,437 that the bundled model was trained on, or the 360 it never saw.

    Returns
    -------
    Digits
        ``images`` float32 (sample, 1, 8, 8) in [0, 1]; ``labels`` int64 (sample,) in 0…9; ``split`` (sample,),
        ``"train"`` or ``"test"``. The order is scikit-learn's.

    Raises
    ------
    ParameterError
        If ``split`` is not one of the three.

    References
    ----------
    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998),
    doi:10.24432/C50P49.

    Examples
    --------
    >>> import depthflow
    >>> data = depthflow.datasets.digits("test")
    >>> data.images.shape, data.labels[:3].tolist()
    ((360, 1, 8, 8), [1, 4, 8])
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if split not in SPLITS:
        raise ParameterError(f"digits needs a split among {SPLITS}; got {split!r}.")
    pixels, labels = load_digits(return_X_y=True)
    _, test = train_test_split(np.arange(len(labels)), test_size=TEST_SHARE, random_state=0, stratify=labels)
    names = np.full(len(labels), "train", dtype=object)
    names[test] = "test"
    chosen = slice(None) if split == "all" else names == split
    images = (pixels / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    return Digits(images[chosen], labels.astype(np.int64)[chosen], names[chosen])


def digits_vit(*, trained: bool = True, seed: int = 0) -> VisionTransformer:
    """Return the bundled 12-block vision transformer for 8×8 digits, in eval mode on the CPU.

    Parameters
    ----------
    trained : bool
        Load the shipped weights (default). ``False`` gives the untrained twin: the same architecture at random
        initialisation, which is the null of every finding about the trained one.
    seed : int
        Seed of the random initialisation; without effect when ``trained``.

    Returns
    -------
    VisionTransformer
        12 pre-norm blocks of width 64 on 17 tokens (one cls, 4×4 patches); images (sample, 1, 8, 8) in, logits
        (sample, 10) out. Its settings and test accuracy stand in ``depthflow/data/digits_vit.json``.

    Examples
    --------
    >>> import depthflow
    >>> len(depthflow.datasets.digits_vit().blocks)
    12
    """
    import torch
    from safetensors.torch import load

    from depthflow.models.vit import VisionTransformer, ViTSettings

    data = resources.files("depthflow") / "data"
    settings = ViTSettings(**json.loads((data / "digits_vit.json").read_text())["settings"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VisionTransformer(settings)
    if trained:
        model.load_state_dict(load((data / "digits_vit.safetensors").read_bytes()))
    return model.eval()


def digits_surrogate() -> RecurrentSurrogate:
    """Return the bundled recurrent surrogate of :func:`digits_vit`: 2 blocks in place of its 12, in eval mode.

    It was fitted by ``tutorials/training/digits_surrogate.py`` to the 1,437 digits that its teacher was trained on.

    Returns
    -------
    RecurrentSurrogate
        Called as its teacher is; how it was made and its scores stand in its ``settings``, ``history`` and ``scores``.

    Examples
    --------
    >>> import depthflow
    >>> len(depthflow.datasets.digits_surrogate().blocks)
    2
    """
    from depthflow.surrogate.recurrent import RecurrentSurrogate

    with resources.as_file(resources.files("depthflow") / "data" / "digits_surrogate") as folder:
        surrogate: RecurrentSurrogate = RecurrentSurrogate.from_pretrained(folder)
    return surrogate
