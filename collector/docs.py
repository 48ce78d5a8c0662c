"""`make docs`: write the pages that come from declarations."""

from __future__ import annotations

import sys
from pathlib import Path

from collector import config_pages, metrics_pages


def main(directory: str) -> None:
    """Write configuration.md and metrics.md into ``directory``."""
    (Path(directory) / "configuration.md").write_text(config_pages.markdown())
    (Path(directory) / "metrics.md").write_text(metrics_pages.markdown())


if __name__ == "__main__":
    main(sys.argv[1])
