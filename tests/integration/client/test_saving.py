"""Saving a result's files to a folder, over both transports, blocking and awaited."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.transports import TRANSPORTS, connected

from maskq import AsyncClient, Client, InvalidRequest, Job, NamedImage, Output, ResultDamaged
from maskq.contract.locations import S3Uri

ALL = {"mask", "overlay", "stats", "logits", "confidence", "rle", "binary", "uncertain"}


@pytest.fixture(params=TRANSPORTS)
def client(
    request: pytest.FixtureRequest, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    with connected(request.param, monkeypatch) as (made, _):
        yield made


def png(colour: str = "teal") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(buffer, "PNG")
    return buffer.getvalue()


def submitted(client: Client, bench: Bench, key: str, outputs: set[str] | None = None) -> Job:
    """A job of an image in S3 that a worker has ended."""
    place = S3Uri(bench.settings.s3_bucket, f"{bench.prefix}/in/{key}")
    bench.store.put(place, png(), "image/png")
    job = client.submit(str(place), outputs=outputs or {"mask"})
    bench.pipeline.run("smallest")
    job.wait(timeout=20)
    return job


def test_every_output_gets_a_file_named_after_the_image(
    client: Client, bench: Bench, tmp_path: Path
) -> None:
    result = submitted(client, bench, "photo.jpg", ALL).result()
    paths = result.save(tmp_path / "new" / "folder")
    classes = {f"photo.binary.{class_id:03d}.png" for class_id in result.labels}
    assert {path.name for path in paths} == classes | {
        "photo.mask.png", "photo.overlay.jpg", "photo.stats.json", "photo.logits.npy",
        "photo.confidence.png", "photo.rle.json", "photo.uncertain.png",
    }  # fmt: skip
    assert sorted(paths) == sorted((tmp_path / "new" / "folder").iterdir())  # and no other file
    for path in paths:
        output = Output(path.name.split(".")[1])
        label = int(path.name.split(".")[2]) if output is Output.BINARY else None
        assert path.read_bytes() == result.read(output, label)


def test_an_uploaded_image_is_named_after_its_job_or_as_the_caller_says(
    client: Client, bench: Bench, tmp_path: Path
) -> None:
    job = client.submit(png())
    bench.pipeline.run("smallest")
    result = job.wait(timeout=20)
    assert [path.name for path in result.save(tmp_path)] == [f"{job.id}.mask.png"]
    assert [path.name for path in result.save(str(tmp_path), name="cat")] == ["cat.mask.png"]
    for name in ("", "a/b", "a\\b", "n" * 200):
        with pytest.raises(InvalidRequest, match="not a valid name for files"):
            result.save(tmp_path, name=name)


def test_bytes_have_the_name_that_the_caller_gives_them(
    client: Client, bench: Bench, tmp_path: Path
) -> None:
    job = client.submit(NamedImage("holiday/a.jpg", png()))
    bench.pipeline.run("smallest")
    (of_batch,) = client.submit_many([NamedImage("b.jpg", png("red"))])
    bench.pipeline.run("smallest")
    assert [path.name for path in job.wait(timeout=20).save(tmp_path)] == ["a.mask.png"]
    assert of_batch.wait(timeout=20).source == "b.jpg"


def test_a_file_with_other_content_is_overwritten_only_on_request(
    client: Client, bench: Bench, tmp_path: Path
) -> None:
    result = submitted(client, bench, "photo.jpg").result()
    (path,) = result.save(tmp_path)
    assert result.save(tmp_path) == [path]  # the same content
    path.write_bytes(b"somebody else's")
    with pytest.raises(InvalidRequest, match=r"photo\.mask\.png exists and has other content"):
        result.save(tmp_path)
    assert path.read_bytes() == b"somebody else's"
    assert result.save(tmp_path, overwrite=True) == [path]
    assert path.read_bytes() == result.read("mask")
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_is_named(
    client: Client, bench: Bench, tmp_path: Path
) -> None:
    result = submitted(client, bench, "photo.jpg").result()
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest, match=r"cannot write .*file/photo\.mask\.png"):
        result.save(tmp_path / "file")
    (tmp_path / "photo.mask.png").mkdir()
    with pytest.raises(InvalidRequest, match=r"cannot write .*photo\.mask\.png"):
        result.save(tmp_path)


@pytest.mark.parametrize("output", ["mask", "overlay", "rle"])
def test_an_object_that_is_cut_short_is_not_saved(
    client: Client, bench: Bench, tmp_path: Path, output: str
) -> None:
    job = submitted(client, bench, "photo.jpg", {output})
    place = S3Uri.parse(job.result().uri(output))
    whole = job.result().read(output)
    bench.store.put(place, whole[:-3], "image/png")
    with pytest.raises(ResultDamaged, match=f"the {output} is not a complete"):
        job.result().save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_awaited_it_saves_the_same(client: Client, bench: Bench, tmp_path: Path) -> None:
    job = submitted(client, bench, "photo.jpg")

    async def save() -> list[Path]:
        async with AsyncClient.from_env() as awaited:
            return await (await (await awaited.get(job.id)).wait()).save(tmp_path / "b")

    (there,) = asyncio.run(save())
    (here,) = job.result().save(tmp_path / "a")
    assert (there.name, there.read_bytes()) == (here.name, here.read_bytes())
