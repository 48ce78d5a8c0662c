"""`make docs`: write the pages that come from declarations."""

from __future__ import annotations

import sys
from pathlib import Path

from collector import config_pages, metrics_pages
from collector.policy import schema


def main(directory: str) -> None:
    """Write configuration.md, metrics.md and policy.schema.json into ``directory``."""
    (Path(directory) / "configuration.md").write_text(config_pages.markdown())
    (Path(directory) / "metrics.md").write_text(metrics_pages.markdown())
    (Path(directory) / "policy.schema.json").write_text(schema.text())


if __name__ == "__main__":
    main(sys.argv[1])
