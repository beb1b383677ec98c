"""A page of a template, in one file: all text is escaped, and nothing is loaded from elsewhere.

A template begins with `{% extends "page.html.j2" %}` and fills the blocks `title`, `style`, `main`
and `script`. The layout brings the style sheet and a policy that forbids fetching; a page with a
script says so in the block `policy`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from calotype import __version__
from calotype.storage.files import write_file


def render_page(package: str, template: str, **context: object) -> str:
    """The HTML of a template.

    Args:
        package: in whose folder the template lies, e.g. `"calotype.training.report"`.
        template: file name of it.
        **context: what its names stand for, functions included. `made` (a time) and `version` for
            the footer have defaults.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("calotype.pages", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["commas"] = "{:,}".format
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return environment.get_template(template).render(
        {"made": made, "version": __version__, **context}
    )


def write_page(path: Path, html: str) -> int:
    """Write a page, replaced in one step, and give its size in bytes."""
    # Captions may hold lone surrogates, which no encoding has.
    page = html.encode("utf-8", errors="replace")
    write_file(path, page)
    return len(page)
