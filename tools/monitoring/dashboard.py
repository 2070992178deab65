"""The dashboard for Grafana, as the JSON of its dashboard model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

from tools.monitoring.panels import ROWS, Panel
from tools.monitoring.rules import ROOT

WRITTEN: Final = ROOT / "deploy" / "grafana" / "dashboards" / "maskq.json"
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24  # of Grafana's grid
_STAT, _GRAPH = 4, 8  # height

Json = dict[str, Any]


def dashboard() -> str:
    """The file that Grafana loads."""
    model = {
        "uid": "maskq",
        "title": "maskq",
        "description": "Written by `python -m tools.monitoring`. docs/monitoring.md explains it.",
        "tags": ["maskq"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_data_source(), _model()]},
        "panels": list(_panels()),
    }
    return json.dumps(model, indent=1) + "\n"


def _data_source() -> Json:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "refresh": 1,
    }


def _model() -> Json:
    return {
        "name": "model",
        "label": "Model",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(maskq_workers, model)", "refId": "model"},
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": "All", "value": "$__all"},
        "hide": 0,
        "refresh": 2,
        "sort": 1,
    }


def _panels() -> Iterator[Json]:
    ids, top = count(1), 0
    for title, panels in ROWS.items():
        row = {"id": next(ids), "type": "row", "title": title, "collapsed": False, "panels": []}
        yield row | {"gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1}}
        top, left = top + 1, 0
        width = _WIDTH // (len(panels) if panels[0].is_stat else _columns(len(panels)))
        height = _STAT if panels[0].is_stat else _GRAPH
        for panel in panels:
            if left + width > _WIDTH:
                top, left = top + height, 0
            place = {"x": left, "y": top, "w": width, "h": height}
            yield {"id": next(ids), "gridPos": place, **_panel(panel)}
            left += width
        top += height


def _columns(panels: int) -> int:
    """So many that no line of a row has a gap."""
    return next(columns for columns in (3, 4, 2, 1) if panels % columns == 0)


def _panel(panel: Panel) -> Json:
    return {
        "type": "stat" if panel.is_stat else "timeseries",
        "title": panel.title,
        **({"description": panel.description} if panel.description else {}),
        "datasource": _SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "range": not panel.is_stat,
                "instant": panel.is_stat,
            }
            for number, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }


def _field(panel: Panel) -> Json:
    if panel.is_stat:
        return {"unit": panel.unit}
    custom = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "spanNulls": False}
    return {"unit": panel.unit, "min": 0, "custom": custom}


def _options(panel: Panel) -> Json:
    if panel.is_stat:
        return {
            "graphMode": "none",
            "colorMode": "none",
            "reduceOptions": {"calcs": ["lastNotNull"], "values": False, "fields": ""},
        }
    return {
        "legend": {
            "displayMode": "list",
            "placement": "bottom",
            "showLegend": True,
            "calcs": [],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
