"""What a worker reads from the environment beyond what it shares with the client."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from maskq.contract.locations import S3Uri
from maskq.contract.locations.allowed import AllowedLocations, Location
from maskq.contract.storage_layout import StorageLayout
from maskq.process.stop_times import DRAIN_S
from maskq.settings import Settings


class WorkerSettings(Settings):
    """One worker process: one model on one device."""

    model: str | None = "Intel/dpt-large-ade"
    model_revision: str | None = (
        None  # a commit of the hub; None: what `maskq weights pull` recorded
    )
    device: str = "auto"  # auto | cpu | cuda; the GPU itself is chosen by CUDA_VISIBLE_DEVICES
    # int8: on a CPU, where `maskq weights quantize` built it
    dtype: Literal["auto", "float32", "float16", "bfloat16", "int8"] = "auto"
    # transformers: the reference path; cpu and cuda: our own network on that device
    backend: Literal["auto", "transformers", "cpu", "cuda"] = "auto"
    # Left open, both follow the device: process/capacity.py.
    max_batch_size: int | None = Field(default=None, ge=1, le=256)  # images a forward
    concurrency: int | None = Field(default=None, ge=1, le=256)  # jobs in flight in this process
    # Seconds that jobs in progress may take to finish when the worker is told to stop.
    drain_s: float = Field(default=DRAIN_S, ge=0.0, allow_inf_nan=False)
    lease_s: float = Field(default=15.0, ge=1.0)  # a silent worker's jobs run elsewhere after this
    event_retention_s: float = Field(default=7 * 86_400.0, gt=0)  # and at most 100,000 events
    # A forward that takes longer is taken for stuck: the process ends and is started again.
    forward_timeout_s: float = Field(default=300.0, gt=0)
    # Of the scores that windows of one image are merged into (mode `tiled`): larger, more detail.
    max_score_bytes: int = Field(default=2**30, ge=2**24)
    s3_client: Literal["obstore", "boto3"] = (
        "obstore"  # of inputs and outputs: storage/obstore_client.py
    )
    max_image_bytes: int = Field(default=64 * 2**20, ge=1)
    max_image_pixels: int = Field(default=100_000_000, ge=1)
    max_image_scans: int = Field(default=100, ge=1)  # of a progressive JPEG
    max_decode_cpu_s: int = Field(default=20, ge=1)  # an image; kept by decoding processes only
    max_decoded_bytes: int = Field(
        default=2**31, ge=1
    )  # of the images in hand together: jobs/memory_budget.py
    # Where images are decoded: processes of their own, or the job's thread. None: processes on Linux.
    decode_in: Literal["process", "thread"] | None = None
    decode_processes: int | None = Field(default=None, ge=1, le=256)  # None: one a core, 2 at least
    # Where jobs may read: s3://bucket or s3://bucket/prefix, comma-separated; {tenant} stands for the
    # job's tenant. Default: wherever the credentials reach.
    allowed_locations: Annotated[tuple[Location, ...], NoDecode] = ()
    allowed_output_locations: Annotated[tuple[Location, ...], NoDecode] = ()  # default: the same
    allowed_buckets: Annotated[frozenset[str], NoDecode] = frozenset()  # as s3://bucket in both
    # Private places that presigned URLs may name, and plain http: host or host:port, comma-separated.
    presigned_allowed_hosts: Annotated[frozenset[str], NoDecode] = frozenset()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    health_file: Path | None = None  # touched every second while the worker is well

    @property
    def wants_cpu(self) -> bool:
        """Whether it must not go to a GPU, also where there is one."""
        return "cpu" in (self.device, self.backend) or self.dtype == "int8"

    @property
    def layout(self) -> StorageLayout:
        return StorageLayout(S3Uri(self.s3_bucket, self.output_prefix))

    def locations(self) -> AllowedLocations:
        """Where jobs may read and write."""
        buckets = [Location(bucket, "") for bucket in sorted(self.allowed_buckets)]
        return AllowedLocations(
            self.layout,
            inputs=self.allowed_locations or buckets,
            outputs=self.allowed_output_locations or buckets,
        )

    @field_validator("allowed_buckets", "presigned_allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return frozenset(_parts(value)) if isinstance(value, str) else value

    @field_validator("allowed_locations", "allowed_output_locations", mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        return tuple(map(Location.parse, _parts(value))) if isinstance(value, str) else value

    @field_validator("allowed_buckets")
    @classmethod
    def _alone(cls, value: Collection[str], info: ValidationInfo) -> Collection[str]:
        for other in ("allowed_locations", "allowed_output_locations"):
            if value and info.data.get(other):
                raise ValueError(
                    f"set either this or MASKQ_{other.upper()}, not both: a bucket b is the location "
                    f"s3://b"
                )
        return value


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
