"""Pages as one file each: their style, scripts and pictures are inside, and nothing is loaded.

The templates are in ``kit/show/pages``. Every id and name comes from someone's table: all text is escaped,
and a page that stands alone forbids itself to load anything.
"""

from __future__ import annotations

from pathlib import Path

import jinja2

from kit.files import digest, file_digest

FOLDER = Path(__file__).with_name("pages")
SHARED = ("page.html.j2", "table.html.j2", "style.css", "page.js")
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:;"
    " base-uri 'none'; form-action 'none'"
)


def render(template: str, alone: bool = True, **content: object) -> str:
    """The page that a template of ``kit/show/pages`` makes of its content.

    Args:
        alone: everything is inside of it; false: pictures are files beside it.
    """
    made = jinja2.Environment(
        autoescape=lambda name: name is None or name.endswith(".j2"),
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return made.get_template(template).render(policy=POLICY if alone else "", **content)


def templates(name: str) -> str:
    """A digest of a template and of all that pages share, for the key of what is rendered from it."""
    return digest([[part, file_digest(FOLDER / part)] for part in (name, *SHARED)])
