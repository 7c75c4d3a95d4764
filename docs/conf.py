"""How Sphinx builds the documentation; ``make docs``, where a warning is an error."""

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from generated import write_all  # noqa: E402 - found by the line above

project = "celery-concurrency"
copyright = "2026, the celery-concurrency maintainers"
release = metadata.version("celery-concurrency")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "_generated", "grafana"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path: list[str] = []

write_all(HERE / "_generated")
