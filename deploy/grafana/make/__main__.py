"""Writes the dashboards: ``python deploy/grafana/make [FOLDER]``. A test keeps what is committed fresh."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from audit import AUDIT
from form import as_json
from keys import KEYS
from overview import OVERVIEW
from store import STORE

DASHBOARDS = (OVERVIEW, KEYS, AUDIT, STORE)


def main(folder: Path) -> None:
    """A file a dashboard."""
    folder.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        path = folder / f"{dashboard.name}.json"
        path.write_text(json.dumps(as_json(dashboard), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "dashboards")
