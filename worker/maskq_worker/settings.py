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
    # Default of both: by the device, see process/capacity.py.
    max_batch_size: int | None = Field(default=None, ge=1, le=256)  # images a forward
    concurrency: int | None = Field(default=None, ge=1, le=256)  # jobs in flight in this process
    lease_s: float = Field(
        default=15.0, ge=1.0
    )  # a job is run elsewhere after a worker is silent for so long
    event_retention_s: float = Field(default=7 * 86_400.0, gt=0)  # at most 100,000 events
    # After this time a forward counts as stuck: the process ends and is restarted.
    forward_timeout_s: float = Field(default=300.0, gt=0)
    # Of the scores that windows of one image are merged into (mode `tiled`): larger, more detail.
    max_score_bytes: int = Field(default=2**30, ge=2**24)
    s3_client: Literal["obstore", "boto3"] = (
        "obstore"  # of inputs and outputs: storage/obstore_client.py
    )
    max_image_bytes: int = Field(default=64 * 2**20, ge=1)
    max_image_pixels: int = Field(default=100_000_000, ge=1)
    max_image_scans: int = Field(default=100, ge=1)  # of a progressive JPEG
    max_decode_cpu_s: int = Field(
        default=20, ge=1
    )  # per image; enforced in decoding processes only
    max_decoded_bytes: int = Field(
        default=2**31, ge=1
    )  # of all images in progress: jobs/memory_budget.py
    # Where images are decoded: in separate processes or the job's thread. None: processes on Linux.
    decode_in: Literal["process", "thread"] | None = None
    decode_processes: int | None = Field(
        default=None, ge=1, le=256
    )  # None: one per core, at least 2
    # Where jobs may read: s3://bucket or s3://bucket/prefix, comma-separated; {tenant} stands for the
    # job's tenant. Default: wherever the credentials allow.
    allowed_locations: Annotated[tuple[Location, ...], NoDecode] = ()
    allowed_output_locations: Annotated[tuple[Location, ...], NoDecode] = ()  # default: the same
    allowed_buckets: Annotated[frozenset[str], NoDecode] = frozenset()  # as s3://bucket in both
    # Private hosts, and hosts with plain http, that presigned URLs may name: host or host:port,
    # comma-separated.
    presigned_allowed_hosts: Annotated[frozenset[str], NoDecode] = frozenset()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    health_file: Path | None = None  # touched every second while the worker is healthy

    @property
    def wants_cpu(self) -> bool:
        """Whether the worker must not use a GPU, even if there is one."""
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
