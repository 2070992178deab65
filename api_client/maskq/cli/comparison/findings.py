"""What pairs of results of two models show."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from maskq.cli.comparison.masks import Differences, check_labels, confusion
from maskq.cli.reporting.tables import aligned
from maskq.client.results.result import Result

CONFUSIONS: Final = 10  # pairs of classes to name


@dataclass(slots=True)
class Findings:
    """Adds up pairs of results."""

    differences: Differences = field(default_factory=Differences)
    models: Counter[str] = field(default_factory=Counter)  # name and revision → jobs, of both sides
    skipped: Counter[str] = field(default_factory=Counter)  # reason → jobs

    def add(self, name: str, first: Result, second: Result) -> None:
        """Compare the masks of an image. Raises NotComparable, MaskqError.

        name: of the pair in the report.
        """
        check_labels(first.details.labels, second.details.labels)
        found = confusion(first.mask(), second.mask())
        self.differences.add(name, found, second.details.labels | first.details.labels)
        for one in (first, second):
            self.models[f"{one.details.model} at {one.details.model_revision}"] += 1

    def document(self) -> dict[str, Any]:
        """As JSON: the models, the share of pixels that differ, and the classes."""
        found = self.differences
        return {
            "models": dict(self.models),
            "differing_share": found.share,
            "classes": [{**self._class(one), "iou": iou} for one, iou in found.iou().items()],
            "confusions": [
                {"first": self._class(one), "second": self._class(other), "share": share}
                for (one, other), share in found.confusions(CONFUSIONS)
            ],
            "skipped": dict(self.skipped),
        }

    def _class(self, class_id: int) -> dict[str, Any]:
        return {"id": class_id, "label": self.differences.labels.get(class_id, "")}


def lines_of(document: dict[str, Any], *, what: str, count: int, worst: list[str]) -> list[str]:
    """The document for people. what: the compared things. worst: a line for each that differs most."""
    classes = [(str(one["id"]), one["label"], f"{one['iou']:.4f}") for one in document["classes"]]
    confusions = [
        (one["first"]["label"], one["second"]["label"], f"{one['share']:.4%}")
        for one in document["confusions"]
    ]
    models = (f"  {name}: {count} results" for name, count in document["models"].items())
    skipped = (f"  {count} {what}: {reason}" for reason, count in document["skipped"].items())
    return [
        f"{count} {what} compared; {document['differing_share']:.4%} of the pixels differ",
        *models,
        "intersection over union, by class:",
        *(f"  {line}" for line in aligned(("ID", "CLASS", "IOU"), classes)),
        *(["classes that differ, first model and second:"] if confusions else []),
        *(f"  {line}" for line in aligned(("FIRST", "SECOND", "PIXELS"), confusions)),
        f"{what} that differ most:",
        *worst,
        *(["not compared:", *skipped] if document["skipped"] else []),
    ]
