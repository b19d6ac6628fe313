"""The page: one HTML file with everything in it. No script, no font, no address: it opens from a disk without a network."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from runners.report.tables import Table

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d1d1f; background: #fff; max-width: 1320px; margin: 0 auto; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 8px; } p { margin: 4px 0 10px; max-width: 80ch; }
.muted, figcaption { color: #55565a; font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 8px; text-align: left; vertical-align: top; border-bottom: 1px solid #dcdce0; }
th { border-bottom: 2px solid #8a8a90; vertical-align: bottom; } td:first-child { font-weight: 600; }
td.short { white-space: nowrap; } td:not(.short) { min-width: 11em; }
figure { margin: 8px 0 20px; } figure img { max-width: 100%; height: auto; display: block; }
pre { background: #f4f4f6; padding: 10px 12px; overflow-x: auto; font-size: 13px; margin: 4px 0 12px; }
.problems { background: #fff6df; border-left: 4px solid #d08700; padding: 8px 14px; }
nav a { margin-right: 14px; color: #0058a3; } details { margin: 6px 0; } summary { cursor: pointer; }
"""

SHORT = 22  # characters of a cell that are kept on one line


def escape(text: str) -> str:
    return html.escape(str(text), quote=True)


def table(made: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in made.headings)
    cell = lambda text: f'<td class="short">{escape(text)}</td>' if len(text) <= SHORT else f"<td>{escape(text)}</td>"  # noqa: E731
    body = "".join("<tr>" + "".join(map(cell, row)) + "</tr>" for row in made.rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def image(png: Path, caption: str) -> str:
    """A picture inside the page, as wide as it was drawn (the files have twice the pixels)."""
    data = base64.b64encode(png.read_bytes()).decode()
    return f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def preformatted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def problems(lines: Sequence[str]) -> str:
    return '<div class="problems">' + "".join(f"<div>{escape(line)}</div>" for line in lines) + "</div>" if lines else ""


def page(title: str, subtitle: str, notes: str, sections: Sequence[tuple[str, str]]) -> str:
    """``notes`` and the contents of ``sections`` (heading, content) are HTML made by the functions above."""
    anchors = [heading.lower().replace(" ", "-") for heading, _ in sections]
    links = "".join(f'<a href="#{escape(anchor)}">{escape(heading)}</a>' for anchor, (heading, _) in zip(anchors, sections, strict=True))
    body = "".join(f'<h2 id="{escape(a)}">{escape(heading)}</h2>{content}' for a, (heading, content) in zip(anchors, sections, strict=True))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>'
        f'<p class="muted">{escape(subtitle)}</p><nav>{links}</nav>{notes}{body}</body></html>\n'
    )
