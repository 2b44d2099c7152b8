"""Make a report: measure, draw, and write one HTML file."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from depthflow.analysis import known_measures
from depthflow.errors import ParameterError, StoreError
from depthflow.reporting import measured, page
from depthflow.reporting.sources import of_model, of_trajectory, require_ordered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import ArrayLike

    from depthflow.reporting.sources import Sources


def report(
    model_or_traj: nn.Module | xr.DataArray | str | Path,
    inputs: Any = None,
    *,
    path: str | Path,
    labels: ArrayLike | None = None,
    sample_ids: ArrayLike | None = None,
    null: nn.Module | xr.DataArray | str | Path | None = None,
    measures: Sequence[str] | None = None,
    blocks: str | None = None,
    device: str | None = None,
    title: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write one self-contained HTML file: the answers first, each with its picture, its null and its numbers.

    Parameters
    ----------
    model_or_traj : torch.nn.Module, xarray.DataArray, str or Path
        A model, which is recorded on ``inputs`` and also pushed, linearised and run with its blocks swapped; a
        trajectory, in memory or dask-backed; or the path of a store of one.
    inputs : optional
        Of a model, what it is called with, as for :func:`depthflow.record`, but so that it can be gone through several
        times: no generator, no shuffling DataLoader. Of a trajectory, the images that it is a recording of, for the
        small pictures beside the samples; they may be left out.
    path : str or Path
        The file to write, such as ``"report.html"``; nothing may be there yet.
    labels : array-like, optional
        One class a sample, instead of those that come with the inputs or the trajectory.
    sample_ids : array-like of str or int, optional
        One name a sample, all different.
    null : torch.nn.Module, xarray.DataArray, str or Path, optional
        The null: a model for a model; a trajectory, or the path of a store, of the same samples for either. By default
        a model's untrained twin, the same architecture at random initialisation. A trajectory, and a model of which no
        twin can be built, is compared with the same states in random directions.
    measures : sequence of str, optional
        Which measures to take; all by default.
    blocks : str, optional
        Dotted name of the list of blocks, as for :func:`depthflow.record`.
    device : str, optional
        Where to run the model; by default where it is.
    title : str, optional
        Heading of the page; by default what was recorded.
    seed : int
        Seed of everything that is drawn; the twin's initialisation is drawn with the next one.
    progress : bool
        Show progress bars.

    Returns
    -------
    Path
        The file. It loads nothing from anywhere: scripts, pictures, numbers and styles are inside.

    Raises
    ------
    StoreError
        If something is at ``path`` already, or nothing can be written there.
    ParameterError
        If a model comes without inputs, the inputs cannot be gone through again, or a measure is not known.
    DepthflowError
        What recording and opening raise; what the measures raise, if none can be taken.

    Notes
    -----
    A measure that refuses the trajectory (one sample is too few to cluster, say) is named on the page with its reason.
    A model is recorded into memory, with its twin. A dask-backed trajectory is read in parts, and its results lie in a
    hidden folder beside ``path`` meanwhile. At most 10,000 samples, evenly spaced, enter the interactive view; every
    number is of all samples.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import depthflow
    >>> traj = depthflow.synthetic.spherical_sink(rate=0.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = depthflow.report(
    ...         traj, path=Path(folder) / "report.html", measures=["convergence"], progress=False
    ...     )
    ...     print(file.name, file.read_text(encoding="utf-8")[:15])
    report.html <!DOCTYPE html>
    """
    require_free(Path(path))
    chosen = known_measures(measures, "report")
    if isinstance(model_or_traj, nn.Module):
        if inputs is None:
            raise ParameterError("report needs the model's inputs: report(model, inputs, path=…).")
        sources = of_model(
            model_or_traj,
            inputs,
            null,
            labels=labels,
            sample_ids=sample_ids,
            blocks=blocks,
            device=device,
            seed=seed,
            progress=progress,
        )
    else:
        given = {"blocks": blocks, "device": device}
        odd = [name for name, value in given.items() if value is not None]
        if odd:
            raise ParameterError(f"report has no use for {odd[0]}= without a model.")
        if inputs is not None:
            require_ordered(inputs)
        sources = of_trajectory(model_or_traj, null, labels=labels, sample_ids=sample_ids, seed=seed)
    return write(sources, Path(path), images=inputs, measures=chosen, title=title, seed=seed, progress=progress)


def write(
    sources: Sources,
    path: Path,
    *,
    images: Any,
    measures: Sequence[str],
    title: str | None,
    seed: int,
    progress: bool,
) -> Path:
    """Measure the sources and write the page to ``path``, where it appears only once it is complete."""
    with _unfinished(path) as folder:
        found = measured.measure(sources, measures, folder=folder, seed=seed, progress=progress)
        hidden = folder / path.name
        hidden.write_text(page.render(sources, found, images=images, title=title, seed=seed), encoding="utf-8")
        _require_nothing(path)
        hidden.rename(path)
    return path


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """Make a hidden folder beside ``path`` for what is not complete; what a killed process left of it goes first."""
    folder = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}. Choose another path.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_free(path: Path) -> None:
    """Raise unless a file can be made at ``path``.

    Raises
    ------
    StoreError
        If something is there already, or nothing can be written there.
    """
    _require_nothing(path)
    if not path.parent.is_dir():
        raise StoreError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    with _unfinished(path):
        pass


def _require_nothing(path: Path) -> None:
    if os.path.lexists(path):
        raise StoreError(f"{path} exists already and is not overwritten. Remove it, or choose another path.")
