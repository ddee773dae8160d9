"""Pages for people: HTML files that load nothing from elsewhere, from templates that escape what they are given."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_page(template: str, **values: Any) -> str:
    """``template``, of those beside this file, as HTML. The same values give the same bytes.

    Templates have ``plural`` and the filters ``short``, ``words`` (of a code), ``jpeg`` (bytes as a data URI), ``link``
    and ``bare``.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["plural"] = plural
    environment.filters |= {
        "short": short_path,
        "words": lambda code: code.replace("_", " "),
        "jpeg": lambda content: "data:image/jpeg;base64," + base64.b64encode(content).decode(),
        "link": web_link,
        "bare": lambda url: url.removeprefix("https://").removeprefix("http://"),
    }
    return environment


def plural(count: int, noun: str) -> str:
    """``1 image``, ``2 images``.

    >>> plural(1, "image"), plural(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def short_path(path: str) -> str:
    """A path's file name and the folder it lies in: names alone repeat across folders.

    >>> short_path("/data/study/p7/image.png")
    'p7/image.png'
    """
    return "/".join(Path(path).parts[-2:])


def web_link(url: str) -> str:
    """``url`` where it leads to the web, else "": a manifest's text must not run as a script when clicked."""
    return url if url.startswith(("https://", "http://")) else ""


def relative_link(path: str) -> str:
    """The address of a file below the page's own folder; no name, however odd, makes it an address elsewhere.

    >>> relative_link("javascript:a/50% #1?.png")
    './javascript%3Aa/50%25%20%231%3F.png'
    """
    return "./" + quote(path)
