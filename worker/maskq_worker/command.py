"""`maskq worker` and `maskq weights`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskq.cli.reporting.progress import Progress
from maskq.extras import require
from maskq.inert import print_error, print_json, print_lines
from maskq.process import starting

if TYPE_CHECKING:
    from PIL import Image

    from maskq_worker.process.cores import CoreShare
    from maskq_worker.process.slots import Slot

_WORKER = (sys.executable, "-m", "maskq_worker")
_WEBHOOKS = (sys.executable, "-m", "maskq_worker.webhooks")


def register(app: typer.Typer) -> None:
    """Add this package's commands. The client's command line calls it if the package is installed."""
    app.command()(worker)
    app.add_typer(weights, name="weights")


class Role(StrEnum):
    SEGMENT = "segment"
    WEBHOOKS = "webhooks"


def worker(
    gpus: Annotated[
        str | None,
        typer.Option(
            help="all, or indices and uuids: 0,1 or MIG-…; default: all, or the CPU if there is none"
        ),
    ] = None,
    processes_per_gpu: Annotated[int, typer.Option(min=1, help="processes that share a GPU")] = 1,
    role: Annotated[
        Role, typer.Option(help="segment images, or post webhooks (needs no GPU and no model)")
    ] = Role.SEGMENT,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="processes on a machine without GPU; default: one for each 8 cores, by NUMA node, "
            "if the memory is enough",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="instead of MASKQ_MODEL")] = None,
) -> None:
    """Serve one model: one process per GPU, each seeing exactly one."""
    from maskq.telemetry.settings import PORT, port_of
    from maskq_worker.process.cpu import share_environment
    from maskq_worker.process.gpus import chosen, environment
    from maskq_worker.process.slots import Slot
    from maskq_worker.settings import WorkerSettings

    if role is Role.WEBHOOKS:
        raise typer.Exit(_supervise([Slot("webhooks", _WEBHOOKS, {})]))
    require("worker", "maskq worker")  # reported here once, not by every child
    with starting():  # the same for a wrong setting
        settings = WorkerSettings.load()
    extra = {"MASKQ_MODEL": model} if model else {}
    set_port = {PORT: str(settings.metrics_port)} if settings.metrics_port else {}
    starts: list[tuple[str, Mapping[str, str], frozenset[int]]]  # name, variables, CPUs to stay on
    if cards := chosen(gpus, wants_cpu=settings.wants_cpu):
        starts = [
            (f"worker {number} on {gpu.uuid}", environment(gpu), frozenset())
            for gpu in cards
            for number in range(processes_per_gpu)
        ]
    else:
        shares = _shares(processes, settings.max_decoded_bytes)
        # Here, because a process that stays on one node does not see the others.
        holds = settings.max_batch_size or _hold_images(shares, settings.max_decoded_bytes)
        one_image = {} if holds else {"MASKQ_MAX_BATCH_SIZE": "1"}
        starts = [
            (f"worker {number} on the CPU", share_environment(share) | one_image, share.cpus)
            for number, share in enumerate(shares)
        ]
    slots = [
        Slot(
            name,
            _WORKER,
            {**variables, **extra, **port_of(number, set_port)},
            drain_s=settings.drain_s,
            cpus=cpus,
        )
        for number, (name, variables, cpus) in enumerate(starts)
    ]
    raise typer.Exit(_supervise(slots))


def _shares(processes: int | None, image_bytes: int) -> list[CoreShare]:
    """The cores of each process on a machine without GPU."""
    from maskq_worker.process.cores import Machine, divided, processes_of

    machine = Machine.read()
    shares = divided(machine, processes or processes_of(machine, image_bytes))
    if len(shares) > 1:
        where = ", each on one NUMA node" if shares[0].cpus else ""
        _report(f"{len(shares)} processes of {shares[0].threads} threads{where}")
    return shares


def _hold_images(shares: Sequence[CoreShare], image_bytes: int) -> bool:
    """Whether the memory holds an image for each thread of all processes. One alone sees it itself."""
    from maskq_worker.process.cores import Machine, images_of

    memory = Machine.read().memory_bytes
    each = None if memory is None else memory // len(shares)
    return len(shares) == 1 or all(
        images_of(one.threads, each, image_bytes) == one.threads for one in shares
    )


def _supervise(slots: Sequence[Slot]) -> int:
    """Keep the processes running until SIGTERM or Ctrl-C. Returns the exit code."""
    from maskq.process.stop_signal import StopSignal
    from maskq_worker.process.supervisor import Supervisor

    return Supervisor(StopSignal(), _report).run(slots)


def _report(line: str) -> None:
    print_error(f"maskq worker: {line}")


weights = typer.Typer(no_args_is_help=True, help="The checkpoints workers load.")


@weights.callback()
def _weights() -> None:
    """The checkpoints workers load."""


@weights.command()
def pull(
    model: Annotated[str, typer.Argument(help="a hub id")] = "Intel/dpt-large-ade",
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Fetch a checkpoint, as safetensors, and record its commit and checksums."""
    require("worker", "maskq weights pull")
    from maskq_worker.model.checkpoint.weights import pull as pull_weights

    pulled = pull_weights(model, revision)
    document = {
        "model": pulled.model,
        "revision": pulled.revision,
        "directory": str(pulled.directory),
    }
    if as_json:
        print_json(document)
    else:
        print_lines(f"{pulled.model} {pulled.revision}", pulled.directory)


@weights.command()
def convert(
    directory: Annotated[Path, typer.Argument(help="in the hub's layout, with pytorch_model.bin")],
) -> None:
    """Write the safetensors of a local checkpoint that has only pytorch_model.bin."""
    require("worker", "maskq weights convert")
    from maskq_worker.model.checkpoint.weights import convert as convert_weights

    print_lines(convert_weights(directory))


# Of the commands that compare masks with those of float32.
Images = Annotated[Path, typer.Option(help="a folder of images like those of your jobs")]
Threshold = Annotated[
    float, typer.Option(min=0, max=1, help="share of pixels that must agree with float32")
]
ImageLimit = Annotated[int, typer.Option(min=1, help="images at most")]


@weights.command()
def quantize(
    model: Annotated[str, typer.Argument(help="a hub id, a folder in the hub's layout or demo")],
    images: Images,
    revision: Annotated[str | None, typer.Option(help="full commit of a hub id")] = None,
    threshold: Threshold = 0.98,
    limit: ImageLimit = 120,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Build the 8-bit network of a checkpoint for this CPU (MASKQ_DTYPE=int8).

    Two thirds of the images calibrate it; the others measure how far its masks agree with those of
    float32. The figures are stored with it. Below the threshold no worker serves it, and the command
    exits with 1.
    """
    require("openvino", "maskq weights quantize")
    from maskq_worker.model.checkpoint.folder import resolve
    from maskq_worker.model.openvino.load import STEPS
    from maskq_worker.model.openvino.load import quantize as quantize_weights

    with Progress(bar_only=True) as progress:
        record = quantize_weights(
            resolve(model, revision),
            _images_in(images, limit, progress),
            threshold=threshold,
            on_progress=lambda done, what: progress.show(done, f"steps: {what}", of=STEPS),
        )
    if as_json:
        print_json(asdict(record))
    else:
        print_lines(f"{record.model}: {record.figures}")
    raise typer.Exit(0 if record.agreement >= threshold else 1)


class HalfPrecision(StrEnum):
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@weights.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="a hub id, a folder in the hub's layout or demo")],
    images: Images,
    dtype: Annotated[HalfPrecision, typer.Option(help="the type to measure")],
    revision: Annotated[str | None, typer.Option(help="full commit of a hub id")] = None,
    threshold: Threshold = 0.98,
    limit: ImageLimit = 120,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Measure a checkpoint's network in half precision on this machine (MASKQ_DTYPE, MASKQ_PRECISION).

    It compares the masks with those of float32: how many pixels agree, and below which margin between
    the two best scores a pixel is uncertain. The figures are stored; a worker on a CPU needs them. It
    computes as a worker with this MASKQ_BACKEND and MASKQ_DEVICE. Below the threshold no worker serves
    the network, and the command exits with 1.
    """
    require("worker", "maskq weights calibrate")
    from maskq_worker.model.checkpoint.folder import resolve
    from maskq_worker.model.precision.calibrate import calibrate as calibrate_weights
    from maskq_worker.settings import WorkerSettings

    settings = WorkerSettings.load()
    with Progress(bar_only=True) as progress:
        record = calibrate_weights(
            resolve(model, revision),
            _images_in(images, limit, progress),
            dtype=dtype.value,
            threshold=threshold,
            backend=settings.backend,
            device=settings.device,
            on_image=lambda done, of: progress.show(done, "images compared", of=of),
        )
    if as_json:
        print_json(asdict(record))
    else:
        print_lines(f"{record.model} {record.figures}")
    raise typer.Exit(0 if record.passes else 1)


def _images_in(folder: Path, limit: int, progress: Progress) -> Iterator[Image.Image]:
    """Upright RGB, in the order of their names; files that are not images are reported and skipped."""
    from maskq_worker.errors import PermanentError
    from maskq_worker.imaging import decode
    from maskq_worker.settings import WorkerSettings

    largest = WorkerSettings.load().max_image_pixels

    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    found = 0
    for path in paths:
        if found == limit:
            return
        try:
            decoded = decode(path.read_bytes(), max_pixels=largest)
        except PermanentError as error:
            progress.say(f"{path} is skipped: {error}")
            continue
        found += 1
        progress.show(found, "images read")
        yield decoded.image
