"""Judge every model of the registries in worker processes, and write down what became of each."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import queue
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.registries.contract import FAILED, Candidate, Outcome, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "_data" / "registries.json"
JOURNALS = ROOT / "docs" / "_build"
LIBRARIES = ("timm", "torchvision", "transformers")
SECONDS, BYTES = 300.0, 8 * 2**30
"""What one model may take."""


def candidates(library: str) -> list[Candidate]:
    """Return the models that a library's registry lists."""
    return import_module(f"tests.registries.{library}_models").candidates()


class Worker:
    """A process that judges models one by one; it is ended and replaced when one takes too much."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.process: Any = None

    def judge(self, candidate: Candidate) -> Outcome:
        """Return what became of the candidate, by name: its functions are made anew in the process."""
        if self.process is None:
            self._start()
        self.pipe.send(candidate.name)
        start = time.monotonic()
        while not self.pipe.poll(0.1):
            limit = "time" if time.monotonic() - start > SECONDS else "memory" if self._memory() > BYTES else None
            if limit is not None:
                return self._ended(candidate, f"ended by its {limit} limit")
        try:
            return self.pipe.recv()
        except EOFError:
            return self._ended(candidate, "its process died")

    def _ended(self, candidate: Candidate, reason: str) -> Outcome:
        self.close()
        return Outcome(candidate.library, candidate.name, candidate.family, FAILED, reason)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(self.library, other), daemon=True)
        self.process.start()
        other.close()

    def _memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def serve(library: str, pipe: Any) -> None:
    """Judge the models whose names come through ``pipe``."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    known = {candidate.name: candidate for candidate in candidates(library)}
    while True:
        pipe.send(judge(known[pipe.recv()]))


def judged(library: str, chosen: list[Candidate], jobs: int) -> Iterator[Outcome]:
    """Yield the outcome of each candidate, from ``jobs`` processes."""

    def work(part: list[Candidate]) -> None:
        worker = Worker(library)
        for candidate in part:
            done.put(worker.judge(candidate))
        worker.close()

    done: queue.Queue[Outcome] = queue.Queue()
    with ThreadPoolExecutor(jobs) as pool:
        for number in range(jobs):
            pool.submit(work, chosen[number::jobs])
        for _ in chosen:
            yield done.get()


def journal_of(library: str) -> Path:
    """Return the file to which a run writes each outcome as it comes."""
    JOURNALS.mkdir(parents=True, exist_ok=True)
    return JOURNALS / f"registries-{library}.jsonl"


def by_turns(found: list[Candidate]) -> list[Candidate]:
    """Return the candidates with one of each family first, so that those already show what there is to mend."""
    turns: Counter[str] = Counter()
    order = []
    for candidate in found:
        turns[candidate.family] += 1
        order.append((turns[candidate.family], len(order), candidate))
    return [candidate for *_, candidate in sorted(order, key=lambda item: item[:2])]


def run(library: str, names: Iterable[str], jobs: int) -> list[dict[str, Any]]:
    """Return the outcomes of the models called ``names``; those in the journal are not judged again."""
    wanted = set(names)
    path = journal_of(library)
    lines = path.read_text().splitlines() if path.exists() else []
    found = list({one["name"]: one for one in map(json.loads, lines) if one["name"] in wanted}.values())
    left = [one for one in candidates(library) if one.name in wanted - {done["name"] for done in found}]
    left = by_turns(left)
    with path.open("a") as journal:
        for count, outcome in enumerate(judged(library, left, jobs), start=1):
            found.append(asdict(outcome))
            journal.write(json.dumps(found[-1], ensure_ascii=False) + "\n")
            journal.flush()
            print(f"{count}/{len(left)} {outcome.name}: {outcome.outcome} {outcome.reason or ''}"[:200], flush=True)
    return found


def machine() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def write(library: str, found: list[dict[str, Any]]) -> None:
    """Put a library's outcomes into the results, in place of those of an earlier run; others stay."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept = ("family", "outcome", "reason", "blocks", "tokens", "width", "checked_by")
    models = {one["name"]: {key: one[key] for key in kept} for one in sorted(found, key=lambda one: one["name"])}
    results[library] = {
        "version": metadata.version(library),
        "torch": metadata.version("torch").partition("+")[0],
        "machine": machine(),
        "seconds": round(sum(one["seconds"] for one in found)),
        "totals": dict(sorted(Counter(one["outcome"] for one in found).items())),
        "models": models,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(lines(results))


def lines(results: dict[str, Any]) -> str:
    """Return the results as JSON with one line a model, so that a change shows which it concerns."""
    libraries = []
    for library, found in sorted(results.items()):
        head = json.dumps({key: value for key, value in found.items() if key != "models"}, ensure_ascii=False)
        models = (f"{json.dumps(name)}: {json.dumps(one, ensure_ascii=False)}" for name, one in found["models"].items())
        libraries.append(f'"{library}": {head[:-1]}, "models": {{\n' + ",\n".join(models) + "\n}}")
    return "{\n" + ",\n".join(libraries) + "\n}\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=LIBRARIES, action="append", help="default: all")
    parser.add_argument("--limit", type=int, help="judge the first so many only, and write no results")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="keep what a run that was broken off has judged")
    options = parser.parse_args()
    for library in options.library or LIBRARIES:
        if not options.resume:
            journal_of(library).unlink(missing_ok=True)
        names = [candidate.name for candidate in candidates(library)][: options.limit]
        found = run(library, names, options.jobs)
        print(library, dict(Counter(one["outcome"] for one in found)))
        if options.limit is None:
            write(library, found)
            journal_of(library).unlink()
