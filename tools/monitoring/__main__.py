"""Write the rules and the dashboard, print the rules with other parameters, or draw the panels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.monitoring import dashboard, rules
from tools.monitoring.drawing import draw


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.monitoring", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    printed = commands.add_parser("rules", help="print the rules")
    printed.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    drawn = commands.add_parser("page", help="draw the dashboard's panels, without Grafana")
    drawn.add_argument("prometheus", metavar="URL")
    drawn.add_argument("file", type=Path, metavar="FILE", help="the page, HTML")
    drawn.add_argument("--minutes", type=float, default=60, help="the last minutes; default: 60")
    given = parser.parse_args()
    if given.command == "rules":
        changed = dict(one.partition("=")[::2] for one in given.set)
        try:
            print(rules.rules(changed), end="")
        except rules.UnknownParameter as error:
            print(error, file=sys.stderr)
            return 2
    elif given.command == "page":
        page = draw(given.prometheus, seconds=given.minutes * 60)
        given.file.write_text(page, encoding="utf-8")
    else:
        _write(rules.WRITTEN, rules.rules({}))
        _write(dashboard.WRITTEN, dashboard.dashboard())
    return 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
