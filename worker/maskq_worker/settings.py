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
from maskq.telemetry.settings import TelemetrySettings


class WorkerSettings(TelemetrySettings):
    """One worker process: one model on one device."""

    model: str | None = "Intel/dpt-large-ade"
    """Checkpoint to load: a hub id, a directory in the hub's layout, or `demo`."""
    model_revision: str | None = None
    """Commit of the hub. Default: the one that `maskq weights pull` recorded."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`. CUDA_VISIBLE_DEVICES chooses the GPU."""
    dtype: Literal["auto", "float32", "float16", "bfloat16", "int8"] = "auto"
    """Type of the network's numbers. On a CPU `bfloat16` and `float16` need `maskq weights calibrate`,
    and `int8` a network built by `maskq weights quantize`.
    """
    precision: Literal["exact", "fast", "certified"] | None = None
    """`exact`: float32. `fast`: half precision or 8 bits, with the share of uncertain pixels in every
    result. `certified`: as `fast`, and float32 again for images with many uncertain pixels. Default: as
    `dtype` says.
    """
    max_uncertain_share: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of an image's pixels that may be uncertain before `certified` computes it again."""
    backend: Literal["auto", "transformers", "cpu", "cuda"] = "auto"
    """What computes the scores: transformers (the reference), or maskq's own network."""
    max_batch_size: int | None = Field(default=None, ge=1, le=256)
    """Images in one forward. Default: 16 on a GPU; 1 on a CPU, and as many at the same time as there
    are threads, if the memory holds them.
    """
    concurrency: int | None = Field(default=None, ge=1, le=256)
    """Jobs that one worker process works on at a time. Default: by the device."""
    drain_s: float = Field(default=DRAIN_S, ge=0.0, allow_inf_nan=False)
    """Seconds that jobs in progress may take to finish when the worker is told to stop."""
    lease_s: float = Field(default=15.0, ge=1.0)
    """Seconds after which the jobs of a silent worker start elsewhere."""
    event_retention_s: float = Field(default=7 * 86_400.0, gt=0)
    """Seconds for which events are kept; never more than 100,000 events."""
    forward_timeout_s: float = Field(default=300.0, gt=0)
    """Seconds a forward may take; otherwise the process exits with 70 and is started again."""
    max_score_bytes: int = Field(default=2**30, ge=2**24)
    """Memory for the merged scores of one image in mode `tiled`. More memory keeps more detail."""
    s3_client: Literal["obstore", "boto3"] = "obstore"
    """Library that reads inputs and writes outputs. With `obstore`, boto3 repeats what fails."""
    max_image_bytes: int = Field(default=64 * 2**20, ge=1)
    """Bytes an image may have; checked before it is read."""
    max_image_pixels: int = Field(default=100_000_000, ge=1)
    """Pixels an image may have; checked before it is decoded."""
    max_image_scans: int = Field(default=100, ge=1)
    """Scans a progressive JPEG may have."""
    max_decode_cpu_s: int = Field(default=20, ge=1)
    """Seconds of processor time for decoding one image. Only decoding processes enforce it."""
    max_decoded_bytes: int = Field(default=2**31, ge=1)
    """Memory for all images that a worker has decoded or decodes; further images wait."""
    decode_in: Literal["process", "thread"] | None = None
    """Where images are decoded: in processes of their own, or in the job's thread. Default: `process`
    on Linux.
    """
    decode_processes: int | None = Field(default=None, ge=1, le=256)
    """Decoding processes of one worker. Default: one per core, at least 2."""
    allowed_locations: Annotated[tuple[Location, ...], NoDecode] = ()
    """Where jobs may read: `s3://bucket/prefix`, comma-separated; `{tenant}` is the job's tenant.
    Default: anywhere.
    """
    allowed_output_locations: Annotated[tuple[Location, ...], NoDecode] = ()
    """Where jobs may write, in the same form. Default: as MASKQ_ALLOWED_LOCATIONS."""
    allowed_buckets: Annotated[frozenset[str], NoDecode] = frozenset()
    """Buckets for both, comma-separated; in place of the two settings above."""
    presigned_allowed_hosts: Annotated[frozenset[str], NoDecode] = frozenset()
    """Private hosts that presigned URLs may name, also with plain http: `host` or `host:port`,
    comma-separated.
    """
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""
    health_file: Path | None = None
    """File that the process touches every second while it is well."""

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
