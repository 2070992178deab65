"""Runs the packages as if there were one output more, and prints where it appears.

It is one file per class. The only files that change are contract/outputs.py and outputs/encoders.py of
the worker.

python tests/support/one_output_more.py    (with the repository's root in PYTHONPATH)
"""

from __future__ import annotations

import json
from typing import Any

from changed_modules import change

LAST_NAME = '    BINARY = "binary"\n'
FILES = "        Output.BINARY: OutputFiles("
ENTRY = """        Output.POLYGONS: OutputFiles(
            name="polygons/{class_id}.geojson",
            content_type="application/geo+json",
            summary="GeoJSON per class",
            meaning="Outlines of each class.",
            changed_by_classes=False,
        ),
"""
ENCODERS = "        Output.BINARY: Encoder(_binary),\n"
OF_ENCODERS = "# In the order of Output.\n"
ENCODER = """def _polygons(made: Segmentation) -> Iterator[Artifact]:
    for entry in made.classes:
        yield _file(Output.POLYGONS, b"{}", entry.id)


"""
CHANGES = {
    "maskq.contract.outputs": {
        LAST_NAME: f'    POLYGONS = "polygons"\n{LAST_NAME}',
        FILES: ENTRY + FILES,
    },
    "maskq_worker.outputs.encoders": {
        ENCODERS: f"        Output.POLYGONS: Encoder(_polygons),\n{ENCODERS}",
        OF_ENCODERS: ENCODER + OF_ENCODERS,
    },
}


def appearances() -> dict[str, bool]:
    """Place → whether the output `polygons` appears there."""
    from tools.reference.contract import outputs as page

    from maskq.client.requests import build
    from maskq.contract import Output, asyncapi
    from maskq.contract.ids import new_id, new_token
    from maskq.contract.locations import S3Uri
    from maskq.contract.options import BY_KEYWORD
    from maskq.contract.storage_layout import StorageLayout, class_file, is_output
    from maskq.errors import InvalidRequest
    from maskq_gateway.api import outputs as gateway
    from maskq_gateway.rules.loop_guard import Written

    made = Output("polygons")
    job, token = StorageLayout(S3Uri("maskq", "maskq")).job(new_id()), new_token()
    place = job.output(token, made)
    file = class_file(place, made, 7)
    schemas = asyncapi.document()["components"]["schemas"]
    options: Any = {"outputs": {"polygons"}}

    def refusal(**more: Any) -> str:
        try:
            build("s3://bucket/key", options | more)
        except InvalidRequest as error:
            return str(error)
        return ""

    return {
        "the option": "polygons (GeoJSON per class)" in BY_KEYWORD["outputs"].meaning,
        "the client's request": build("s3://bucket/key", options).outputs == {made},
        "output_urls": "polygons: it is one file" in refusal(output_urls={made: "https://a/b"}),
        "classes": "none of which" in refusal(classes={"sky"}),
        "its place": str(place) == f"s3://maskq/maskq/{job.job_id}/{token}/polygons/",
        "its place in a result": job.is_output(made, str(place)),
        "its file": file == job.file(token, "polygons/007.geojson"),
        "its file is the job's": job.has(file) and is_output(file.key),
        "others are not": not job.has(job.file(token, "polygons/x.geojson")),
        "AsyncAPI": "polygons" in json.dumps(schemas["SegmentRequest"]),
        "its rules": any(
            keys.example == "polygons/007.geojson"
            for keys in Written("a", place, frozenset({made})).keys
        ),
        "the gateway's content types": "application/geo+json" in gateway.contents(),
        "the worker": _encoded() == [("polygons/000.geojson", "application/geo+json")],
        "docs/reference/outputs.md": "| `polygons/{class_id}.geojson` |" in page(),
    }


def _encoded() -> list[tuple[str, str]]:
    import numpy as np
    from PIL import Image

    from maskq.contract import Output
    from maskq_worker.outputs import encode

    class Segmented:
        mask = np.zeros((2, 3), np.uint8)
        logits = None
        confidence = None
        uncertain = None

    artifacts = encode(
        frozenset({Output("polygons")}),
        image=Image.new("RGB", (3, 2)),
        output=Segmented(),
        labels=["sky"],
    )
    return [(artifact.filename, artifact.content_type) for artifact in artifacts]


if __name__ == "__main__":
    change(CHANGES)
    print(json.dumps(appearances()))
