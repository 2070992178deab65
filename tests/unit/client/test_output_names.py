"""output_name: what is refused, early and after the placeholders are filled in."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from maskq.contract import Output, SegmentRequest
from maskq.contract.locations import S3Uri
from maskq.contract.locations.allowed import has_own_form
from maskq.contract.locations.output_names import PLACEHOLDERS, ImageName, copies_named_in
from maskq.contract.locations.output_places import STORED
from maskq.contract.storage_layout import StorageLayout

JOB = "01a206e7-a91c-7f60-938b-7a3d65bbbf53"
TOKEN = "vBAek5XhHv_EKwH0"
LAYOUT = StorageLayout(S3Uri("maskq", "maskq"))


def request(**fields: Any) -> SegmentRequest:
    named = {
        "image_uri": "s3://photos/incoming/a.jpg",
        "output_prefix": "s3://photos",
        "output_name": "masks/{stem}.{output}",
    }
    return SegmentRequest.model_validate({**named, **fields})


def keys(asked: SegmentRequest, class_ids: tuple[int, ...] = ()) -> dict[str, str]:
    job = LAYOUT.job(JOB, tenant=asked.tenant, output_prefix=asked.output_prefix)
    named = job.named_files(asked)
    assert named
    return {file: place.key for file, place in named.copies(class_ids).items()}


def test_the_mask_of_an_upload_is_found_from_the_upload_s_key() -> None:
    assert keys(request()) == {"mask.png": "masks/a.mask.png"}


@pytest.mark.parametrize(
    ("template", "image", "mask"),
    [
        ("{dir}/{stem}.{output}", "s3://photos/x/y/a.b.jpg", "x/y/a.b.mask.png"),
        ("{dir}/{stem}.{output}", "s3://photos/a.jpg", "a.mask.png"),
        ("masks/{dir}/{stem}", "s3://photos/a.jpg", "masks/a.png"),
        ("{stem}", "s3://photos/.hidden", ".hidden.png"),
        ("{stem}", "s3://photos/no-suffix", "no-suffix.png"),
        ("{stem}-{job_id}", "s3://photos/a.jpg", f"a-{JOB}.png"),
        ("{stem}", "https://example.com/x/gr%C3%BCn.jpg?X-Amz-Signature=s", "grün.png"),
        ("{dir}/{stem}", "https://example.com/x/a.jpg", "x/a.png"),
        ("{stem}", "s3://photos/{job_id}{output}.jpg", "{job_id}{output}.png"),  # no placeholders
        ("{stem}", f"s3://maskq/maskq/{JOB}/input", f"{JOB}.png"),  # an upload
        ("latest", "s3://photos/a.jpg", "latest.png"),
    ],
)
def test_placeholders(template: str, image: str, mask: str) -> None:
    asked = request(image_uri=image, output_name=template)
    assert keys(asked) == {"mask.png": mask}


def test_one_file_per_class_is_a_folder_or_has_the_class_in_its_name() -> None:
    both = request(outputs=["mask", "binary"])
    assert keys(both, (7, 12)) == {
        "mask.png": "masks/a.mask.png",
        "binary/007.png": "masks/a.binary/007.png",
        "binary/012.png": "masks/a.binary/012.png",
    }
    by_class = request(outputs=["binary"], output_name="{class}/{stem}")
    assert keys(by_class, (7,)) == {"binary/007.png": "007/a.png"}
    mixed = request(outputs=["mask", "binary"], output_name="{stem}.{output}{class}")
    assert keys(mixed, (7,)) == {"mask.png": "a.mask.png", "binary/007.png": "a.binary007.png"}


@pytest.mark.parametrize(
    ("template", "error_file"),
    [("masks/{stem}.{output}", "masks/a.error.json"), ("{stem}", "a.error.json"),
     ("{output}/{stem}", "error/a.json"), ("{class}/{output}", "error/error.json")],
)  # fmt: skip
def test_the_error_file_is_beside_the_mask(template: str, error_file: str) -> None:
    named = request(output_name=template, outputs=["binary"]).named_files(JOB)
    assert named
    assert named.error_file() == S3Uri("photos", error_file)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"output_name": "../{stem}"}, "a part '.' or '..'"),
        ({"output_name": "a/../{stem}"}, "a part '.' or '..'"),
        ({"output_name": "./{stem}"}, "a part '.' or '..'"),
        ({"output_name": "%2e%2e/{stem}"}, "a part '.' or '..'"),
        ({"output_name": "%252e%252e%2f{stem}"}, "a part '.' or '..'"),
        ({"output_name": "..\\{stem}"}, "a part '.' or '..'"),
        ({"output_name": "/{stem}"}, "begins with a slash"),
        ({"output_name": "%2f{stem}"}, "begins with a slash"),
        ({"output_name": "a\n{stem}"}, "control character"),
        ({"output_name": "a\x7f"}, "control character"),
        ({"output_name": "a\x85"}, "control character"),
        ({"output_name": "a\u2028"}, "control character"),
        ({"output_name": ""}, "at least 1 character"),
        ({"output_name": "masks/"}, "empty part"),
        ({"output_name": "a//b"}, "empty part"),
        ({"output_name": "{name}"}, "{name} is not a placeholder; the placeholders are: {dir}"),
        ({"output_name": "{}"}, "{} is not a placeholder"),
        ({"output_name": "{Stem}"}, "{Stem} is not a placeholder"),
        ({"output_name": "{stem!r}"}, "is not a placeholder"),
        ({"output_name": "a{"}, "a single { or }"),
        ({"output_name": "{{stem}}"}, "a single { or }"),
        ({"output_name": "x" * 501}, "500"),
        ({"output_name": "{class}"}, "an empty part for the output mask"),
        ({"output_name": "{stem}/{class}", "outputs": ["stats", "binary"]}, "the output stats"),
        ({"output_name": "{stem}", "outputs": ["mask", "confidence"]}, "the same name"),
        ({"output_name": "{stem}", "outputs": ["stats", "rle"]}, "add {output}"),
        ({"output_prefix": None}, "needs an output_prefix"),
        ({"output_name": None, "output_replace": True}, "go with an output_name"),
        ({"output_name": None, "output_error_file": True}, "go with an output_name"),
    ],
)
def test_a_template_is_refused_when_the_job_is_submitted(fields: Any, said: str) -> None:
    with pytest.raises(ValidationError, match="output_") as caught:
        request(**fields)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("s3://photos/../a.jpg", "a part '.' or '..'"),
        ("s3://photos/x/../a.jpg", "a part '.' or '..'"),
        ("s3://photos/./a.jpg", "a part '.' or '..'"),
        ("s3://photos//x/a.jpg", "begins with a slash"),
        ("s3://photos/%2e%2e/a.jpg", "a part '.' or '..'"),
        ("s3://photos/..\\a/b.jpg", "a part '.' or '..'"),
        ("s3://photos/a\r\nb/a.jpg", "control character"),
        ("s3://photos/x/a\x1b.jpg", "control character"),
        ("s3://photos/x/", "{stem} would be empty"),
        (f"s3://photos/{'x' * 1020}.jpg", "longer than 1024 bytes"),
        ("https://example.com/%2e%2e/a.jpg", "a part '.' or '..'"),
    ],
)
def test_a_key_may_contain_anything_and_the_name_is_checked_again(image: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        request(image_uri=image, output_name="{dir}/{stem}.{output}")
    assert said in str(caught.value)
    # Without an output_name the same image is accepted, and a stored request is read as it is
    request(image_uri=image, output_name=None)
    stored = {"image_uri": image, "output_prefix": "s3://photos", "output_name": "{dir}/{stem}"}
    SegmentRequest.model_validate(stored, context=STORED)


def test_a_name_of_maskq_s_own_form_is_recognised_as_a_store_reads_it() -> None:
    own = f"out/{JOB}/{TOKEN}/mask.png"
    for key in (own, own.replace("/", "//"), own.replace("/", "%2F"), f"x/../{own}"):
        assert has_own_form(key)
    assert not has_own_form("masks/a.mask.png")


def test_outputs_at_urls_of_the_caller_have_no_copy() -> None:
    asked = request(
        outputs=["mask", "stats"], output_urls={"mask": "https://example.com/put?secret"}
    )
    assert [*keys(asked)] == ["stats.json"]


def test_what_every_name_begins_and_ends_with() -> None:
    named = request(outputs=["mask", "binary"]).named_files(JOB)
    assert named
    assert named.template.literal_ends(Output.MASK) == ("masks/", ".mask.png")
    assert named.template.literal_ends(Output.BINARY) == ("masks/", ".png")
    assert named.template.literal_ends(None) == ("masks/", ".error.json")


def test_the_placeholders_are_these() -> None:
    assert PLACEHOLDERS == ("dir", "stem", "job_id", "output", "class")
    assert ImageName.of("s3://b/x/a.jpg") == ImageName("x", "a")


@pytest.mark.parametrize(
    "document",
    [b"", b"\xff", b"[]", b"7", b"{}", b'{"copies": 7}', b'{"copies": {"a": 7}}', b"[" * 10_000],
)
def test_what_is_no_document_of_maskq_names_no_copies(document: bytes) -> None:
    assert copies_named_in(document) == []


def test_a_document_names_copies() -> None:
    assert copies_named_in(b'{"copies": {"mask.png": "s3://photos/a.png"}}') == [
        S3Uri("photos", "a.png")
    ]


def test_an_upload_is_named_after_the_file_that_the_caller_gave() -> None:
    job = LAYOUT.job(JOB, output_prefix="s3://photos")
    asked = request(image_uri=str(job.upload), output_name="{dir}{stem}.{output}")

    def key(source: str | None) -> str:
        named = job.named_files(asked, source)
        assert named
        return named.copies(())["mask.png"].key

    assert key("/home/me/holiday.photo.jpg") == "holiday.photo.mask.png"
    assert key("C:\\\\photos\\\\a.jpg") == "a.mask.png"
    assert key(None) == key(str(job.upload)) == f"{JOB}.mask.png"
