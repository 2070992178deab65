"""One page of records, as `list` returns it."""

from __future__ import annotations

from collections.abc import Iterator

from maskq.contract import JobRecord
from maskq.ledger import calls


class Page(calls.Page):
    """Some records, and where the next page begins. Iterate over it for its records."""

    __slots__ = ()

    def __iter__(self) -> Iterator[JobRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __bool__(self) -> bool:
        """Always true: an empty page may have a successor."""
        return True

    def _repr_html_(self) -> str:
        from maskq.view.tables import jobs_html

        more = "more with cursor=page.cursor" if self.cursor else "the last page"
        title = f"{len(self.records)} jobs, {more}"
        return jobs_html(title, [(record.id, record) for record in self.records])
