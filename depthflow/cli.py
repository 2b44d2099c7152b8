"""The command line: ``depthflow inspect | record | analyze | fit | report | demo``.

Exit status 0, or 2 with one clear line for a mistake of the user's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depthflow.errors import DepthflowError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from depthflow.reporting.sources import Sources

app = typer.Typer(
    name="depthflow",
    help="Read a transformer's forward pass as a dynamical system.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[
    str, typer.Argument(help="digits (bundled), timm:NAME, hf:NAME_OR_DIR, torchvision:NAME or hub:REPO:NAME")
]
Images = Annotated[str, typer.Argument(help="a folder of images, or digits")]
StoreOrModel = Annotated[str, typer.Argument(help="a store made by record; or, with IMAGES, a model as for record")]
ImagesOfModel = Annotated[str | None, typer.Argument(help="a folder of images, or digits, for a model")]
Measures = Annotated[str | None, typer.Option(help="such as convergence,phases; all by default")]
Null = Annotated[
    Path | None, typer.Option(help="of a store: the null's store, such as the untrained twin's; else random directions")
]
Output = Annotated[Path, typer.Option("-o", "--output", help="folder for the results")]
RandomWeights = Annotated[bool, typer.Option("--random-weights", help="untrained weights: the null")]
Seed = Annotated[int, typer.Option(help="seed of everything that is drawn")]
Blocks = Annotated[str | None, typer.Option(help="dotted path to the list of blocks, where it is not found")]
LabelsFromFolders = Annotated[bool, typer.Option("--labels-from-folders", help="class sub-folders give the labels")]
BatchSize = Annotated[int, typer.Option(help="images a batch")]
Device = Annotated[
    str | None, typer.Option(help="torch device; the model's own by default; cuda under torchrun: one each")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress bars")]


@app.command()
def inspect(model: Model, random_weights: RandomWeights = False, seed: Seed = 0, blocks: Blocks = None) -> None:
    """Say what is known of a model: its blocks, its tokens, its norms, or why it cannot be recorded."""
    from depthflow.recording.inspection import inspect as look
    from depthflow.sources import load_model

    typer.echo(look(load_model(model, random_weights=random_weights, seed=seed).model, blocks=blocks))


@app.command()
def record(
    model: Model,
    images: Images,
    store: Annotated[Path, typer.Option(help="zarr store to write; an unfinished one is continued")],
    labels_from_folders: LabelsFromFolders = False,
    tokens: Annotated[str, typer.Option(help="all, a token type, cls+mean, or indices such as 0,5,9")] = "all",
    depths: Annotated[str | None, typer.Option(help="depths to keep, such as 0,6,12; all by default")] = None,
    batch_size: BatchSize = 32,
    device: Device = None,
    dtype: Annotated[str, typer.Option(help="float32, float64 or float16")] = "float32",
    blocks: Blocks = None,
    resume: Annotated[bool, typer.Option(help="continue an unfinished store")] = True,
    random_weights: RandomWeights = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Record a model's states on images into a store; under torchrun, each process a part of the images."""
    from depthflow.recording.forward import record as run
    from depthflow.recording.share import share
    from depthflow.sources import load_images, load_model

    loaded = load_model(model, random_weights=random_weights, seed=seed)
    source = load_images(images, loaded, labels_from_folders=labels_from_folders, batch_size=batch_size)
    traj = run(
        loaded.model,
        source.batches,
        labels=source.labels,
        sample_ids=source.names,
        tokens=_integers(tokens, "--tokens") if tokens[0].isdigit() else tokens,
        depths=None if depths is None else _integers(depths, "--depths"),
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        blocks=blocks,
        store=store,
        resume=resume,
        progress=not quiet,
    )
    sizes = ", ".join(f"{size} {dim}s" for dim, size in traj.sizes.items())
    place = share()
    whose = f" (process {place.rank + 1} of {place.of})" if place.of > 1 else ""
    typer.echo(f"{store}: {sizes}, {traj.dtype}, {traj.nbytes / 1e6:.1f} MB{whose}")


@app.command()
def analyze(
    source: StoreOrModel,
    output: Output,
    images: ImagesOfModel = None,
    measures: Measures = None,
    null: Null = None,
    labels_from_folders: LabelsFromFolders = False,
    batch_size: BatchSize = 32,
    device: Device = None,
    blocks: Blocks = None,
    random_weights: RandomWeights = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Measure a store, or a model on images, beside its null; write results, a picture per question and a summary.

    Of a store the states are measured. A model is recorded into memory and measured, pushed, linearised and run with
    its blocks swapped, all beside its untrained twin.
    """
    from depthflow.analysis import known_measures
    from depthflow.output import RESULTS, claim, write

    chosen = known_measures(_names(measures), "analyze", model=images is not None)
    sources = _sources(
        source,
        images,
        null,
        labels_from_folders=labels_from_folders,
        batch_size=batch_size,
        device=device,
        blocks=blocks,
        random_weights=random_weights,
        seed=seed,
        progress=not quiet,
        ready=lambda: claim(output),
    )
    store = output / RESULTS if images is None else None
    typer.echo(write(sources.analyze(measures=chosen, store=store, seed=seed, progress=not quiet), output))


@app.command()
def fit(
    model: Model,
    images: Images,
    output: Output,
    phases: Annotated[int, typer.Option(help="how many blocks the surrogate has")] = 2,
    steps: Annotated[str | None, typer.Option(help="optimiser steps of both stages, such as 200,4000")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images a step")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="JSON file with any of SurrogateSettings; the options above come first")
    ] = None,
    labels_from_folders: LabelsFromFolders = False,
    device: Device = None,
    blocks: Blocks = None,
    resume: Annotated[bool, typer.Option(help="continue an unfinished fit in the same folder")] = True,
    random_weights: RandomWeights = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit a recurrent surrogate, a few blocks in place of all, and score it on images that it did not see."""
    from depthflow import fitting
    from depthflow.sources import load_model

    pair = None if steps is None else _integers(steps, "--steps")
    chosen = fitting.read_settings(settings, steps=pair, batch_size=batch_size)
    typer.echo(
        fitting.fit(
            load_model(model, random_weights=random_weights, seed=seed),
            images,
            output,
            n_phases=phases,
            settings=chosen,
            labels_from_folders=labels_from_folders,
            blocks=blocks,
            device=device,
            resume=resume,
            seed=seed,
            progress=not quiet,
        )
    )


@app.command()
def report(
    source: StoreOrModel,
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write; nothing may be there yet")],
    images: ImagesOfModel = None,
    measures: Measures = None,
    null: Null = None,
    title: Annotated[str | None, typer.Option(help="heading of the page")] = None,
    labels_from_folders: LabelsFromFolders = False,
    batch_size: BatchSize = 32,
    device: Device = None,
    blocks: Blocks = None,
    random_weights: RandomWeights = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Measure as analyze does, and write one HTML file with the answers, pictures, numbers and a view of the sphere."""
    from depthflow.analysis import known_measures
    from depthflow.reporting.build import require_free, write

    chosen = known_measures(_names(measures), "report")
    sources = _sources(
        source,
        images,
        null,
        labels_from_folders=labels_from_folders,
        batch_size=batch_size,
        device=device,
        blocks=blocks,
        random_weights=random_weights,
        seed=seed,
        progress=not quiet,
        ready=lambda: require_free(output),
    )
    subject = sources.case.subject
    if subject is not None:
        title = title or f"{source} on {images}"
    shown = None if subject is None else subject.inputs
    write(sources, output, images=shown, measures=chosen, title=title, seed=seed, progress=not quiet)
    typer.echo(f"Written to {output} ({output.stat().st_size / 1e6:.1f} MB)")


@app.command()
def demo(output: Output = Path("depthflow-demo"), quiet: Quiet = False) -> None:
    """Run everything on the bundled model and its digits, beside its untrained twin; under a minute."""
    from depthflow.demo import demo as run

    typer.echo(run(output, progress=not quiet))


def _names(measures: str | None) -> list[str] | None:
    return None if measures is None else [name.strip() for name in measures.split(",")]


def _sources(
    source: str,
    images: str | None,
    null: Path | None,
    *,
    labels_from_folders: bool,
    batch_size: int,
    device: str | None,
    blocks: str | None,
    random_weights: bool,
    seed: int,
    progress: bool,
    ready: Callable[[], None],
) -> Sources:
    """Open a store, or load a model and its untrained twin, see that there is room for what comes of it, and record."""
    from depthflow.reporting.sources import of_model, of_trajectory

    if images is None:
        sources = of_trajectory(source, null, labels=None, sample_ids=None, seed=seed)
        ready()
        return sources
    from depthflow.analysis import TWIN
    from depthflow.sources import load_images, load_model

    if null is not None:
        raise ParameterError("--null is the null of a store; a model is measured beside its own untrained twin.")
    loaded = load_model(source, random_weights=random_weights, seed=seed)
    given = load_images(images, loaded, labels_from_folders=labels_from_folders, batch_size=batch_size)
    twin = load_model(source, random_weights=True, seed=seed + 1).model
    ready()
    return of_model(
        loaded.model,
        given.batches,
        twin,
        null_name=TWIN,
        labels=given.labels,
        sample_ids=given.names,
        blocks=blocks,
        device=device,
        seed=seed,
        progress=progress,
    )


def _integers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ParameterError(
            f"{option} needs whole numbers separated by commas, such as 0,6,12; got {text!r}."
        ) from None


def main() -> None:
    """Run the command line; a mistake of the user's prints one clear line and exits with status 2."""
    try:
        app()
    except DepthflowError as error:
        typer.echo(f"depthflow: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
