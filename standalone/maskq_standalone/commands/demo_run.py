"""`maskq demo`: the main job, end to end, on an embedded Redis and S3."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskq import Client, JobFailed, Result, environment
from maskq.errors import MaskqError
from maskq.inert import print_error, print_lines
from maskq_standalone.children.child import ChildError
from maskq_standalone.commands.pictures import (
    SHIPPED,
    SHIPPED_SEED,
    Picture,
    beside,
    drawn_scenes,
    photographs,
    shipped_scenes,
)
from maskq_standalone.demo.score import mean_iou
from maskq_standalone.stack import Stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from maskq import Job

_JOB_TIMEOUT_S = 600.0
_SHOWN_CLASSES = 3
_DRAWN = "drawn scene"
_PHOTO = "photograph: shows the pipeline, not the quality of a real checkpoint"


def run(
    *, photos: list[Path], seed: int | None, scenes: int, model: str, workers: int, out: Path
) -> int:
    """Segment drawn scenes and photographs through the queue. Returns the command's exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: stop the stack, remove its data
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        pictures = _pictures(photos, seed, scenes)
        out.mkdir(parents=True, exist_ok=True)
        if not _at_hand(model):
            return 1
        with (
            Stack(workers=workers, model=model, report=_say, log_level="WARNING") as stack,
            _environment(stack.environment),
            Client.from_env() as client,
        ):
            return _show(client, pictures, model, out)
    except (ChildError, MaskqError, OSError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


def _pictures(photos: list[Path], seed: int | None, count: int) -> list[Picture]:
    if seed is None and count <= SHIPPED:
        scenes = shipped_scenes(count)
    else:
        scenes = drawn_scenes(SHIPPED_SEED if seed is None else seed, count)
    return [*scenes, *photographs(photos)]


def _at_hand(model: str) -> bool:
    """A hub id is fetched first; where the hub cannot be reached that is said in one line."""
    if model == "demo" or Path(model).is_dir():
        return True
    from maskq_worker.model import ModelError
    from maskq_worker.model.checkpoint.folder import resolve
    from maskq_worker.model.checkpoint.weights import pull

    try:
        resolve(model, None)
        return True
    except ModelError:
        _say(f"fetching {model}")
    try:
        pull(model)
        return True
    except ModelError as error:
        _say(str(error))
        return False


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    _become(environment.laid_over(before, settings))
    try:
        yield
    finally:
        _become(before)


def _become(wanted: Mapping[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def _show(client: Client, pictures: Sequence[Picture], model: str, out: Path) -> int:
    began = time.perf_counter()
    batch = client.submit_many(
        [picture.image for picture in pictures], outputs={"mask", "overlay", "stats"}
    )
    names = {job.id: picture for job, picture in zip(batch.jobs, pictures, strict=True)}
    _say(f"{len(batch)} jobs submitted")
    ended: dict[str, Job] = {}
    for job in batch.as_completed(timeout=_JOB_TIMEOUT_S):
        ended[job.id] = job
        _say(f"{len(ended)} of {len(batch)}  {names[job.id].name} {job.status.value}")
    seconds = time.perf_counter() - began
    return _report(
        client, [(names[job.id], ended[job.id]) for job in batch.jobs], model, out, seconds
    )


def _report(
    client: Client, pairs: Sequence[tuple[Picture, Job]], model: str, out: Path, seconds: float
) -> int:
    print_lines(f"{'picture':<16} {'job':<36} {'state':<9} {'size':>9} {'ms':>7}  classes")
    scored: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
    failed = 0
    for picture, job in pairs:
        try:
            result = job.result()
        except JobFailed as error:
            failed += 1
            print_lines(f"{picture.name:<16} {job.id:<36} {job.status.value:<9} {error.message}")
            continue
        print_lines(_row(picture, job, result))
        if picture.truth is not None:
            scored.append((picture.truth, np.asarray(result.mask())))
        _save(picture, result, model, out)
    print_lines("", f"{len(pairs) - failed} of {len(pairs)} succeeded in {seconds:.1f} s")
    print_lines(f"pictures: {out.absolute()}")
    if scored:
        print_lines(f"mean IoU of the {len(scored)} drawn scenes: {mean_iou(scored):.3f}")
    return 1 if failed else 0


def _row(picture: Picture, job: Job, result: Result) -> str:
    top = ", ".join(f"{s.label} {s.share:.0%}" for s in result.stats[:_SHOWN_CLASSES])
    size = f"{result.size[0]}x{result.size[1]}"
    spent = sum(result.details.timings_ms.values())
    place = f"{picture.name:<16} {job.id:<36} {job.status.value:<9}"
    return f"{place} {size:>9} {spent:>7.0f}  {top}"


def _save(picture: Picture, result: Result, model: str, out: Path) -> None:
    kind = _DRAWN if picture.truth is not None else _PHOTO if model == "demo" else "photograph"
    caption = f"{picture.name} ({kind}), {model}"
    beside(picture, result.overlay(), caption).save(out / f"{picture.name}.png")
    result.mask().save(out / f"{picture.name}-mask.png")


def _say(line: str) -> None:
    print_error(f"maskq demo: {line}")
