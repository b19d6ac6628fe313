"""Tables for papers: Markdown and LaTeX of what the page shows."""

from __future__ import annotations

from collections.abc import Sequence

from runners.report.tables import Table

SPECIAL = {letter: "\\" + letter for letter in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}


def markdown(tables: Sequence[tuple[str, Table]]) -> str:
    """Headings and pipe tables."""
    parts = []
    for title, made in tables:
        lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in (made.headings, *made.rows)]
        parts.append("\n".join([f"## {title}", "", lines[0], "|" + "---|" * len(made.headings), *lines[1:], ""]))
    return "\n".join(parts)


def latex(tables: Sequence[tuple[str, Table]]) -> str:
    """``table`` environments for the package booktabs."""
    parts = ["% needs \\usepackage{booktabs}"]
    for title, made in tables:
        rows = [" & ".join(map(escape, row)) + r" \\" for row in made.rows]
        head = " & ".join(map(escape, made.headings)) + r" \\"
        body = [r"\begin{table}", r"\centering\small", f"\\caption{{{escape(title)}}}", f"\\begin{{tabular}}{{l{'r' * (len(made.headings) - 1)}}}"]
        parts.append("\n".join([*body, r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    return "".join(SPECIAL.get(letter, letter) for letter in text)
