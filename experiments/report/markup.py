"""HTML from what the experiments have written: tables, pictures, and their Markdown."""

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

# Wider than this, a figure is not shrunk to a telephone but scrolls.
_WIDE = 900


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: int = 1,
    caption: str = "",
    of_paper: Sequence[int] = (),
) -> str:
    """A table in a box of its own that scrolls.

    Args:
      header: HTML of the columns' heads.
      rows: HTML of the cells.
      left: so many columns are aligned left, the others right.
      caption: HTML.
      of_paper: positions of rows that are not our own.
    """

    def cells(values: Sequence[str], tag: str, start: str = "") -> str:
        parts = []
        for position, value in enumerate(values):
            kind = ' class="number"' if position >= left else ""
            first = tag == "td" and position == 0
            name, scope = ("th", ' scope="row"') if first else (tag, start)
            parts.append(f"<{name}{kind}{scope}>{value}</{name}>")
        return "".join(parts)

    body = "".join(
        f"<tr{' class=of-paper' if position in of_paper else ''}>{cells(row, 'td')}</tr>\n"
        for position, row in enumerate(rows)
    )
    head = cells(header, "th", ' scope="col"')
    title = f"<caption>{caption}</caption>" if caption else ""
    label = f' aria-label="{escape(re.sub("<[^>]*>", "", caption) or "Table")}"'
    return (
        f'<div class="box" tabindex="0" role="region"{label}><table>{title}'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many decimals; with significant digits where those would be all zero.

    Example:
      >>> number(0.1234), number(0.00001234), number(0.0), number(None)
      ('0.123', '1.23e-05', '0.000', '–')
    """
    if value is None:
        return "–"
    small = 0 < abs(value) < 0.5 * 10**-digits
    return f"{value:.3g}" if small else f"{value:.{digits}f}"


def image(path: Path, alt: str, *, kind: str = "") -> str:
    """A picture, inside the page.

    Args:
      path: of a PNG.
      alt: what it shows.
      kind: its class.
    """
    with Image.open(path) as picture:
        width, height = picture.size
    data = base64.b64encode(path.read_bytes()).decode()
    kind = kind or ("wide" if width > _WIDE else "")
    return (
        f'<img class="{kind}" width="{width}" height="{height}" alt="{escape(alt)}" '
        f'src="data:image/png;base64,{data}">'
    )


def figure(path: Path, caption: str) -> str:
    """A figure with its caption, which also links to the file beside the page."""
    link = f"{path.parent.name}/{path.name}"
    return (
        f'<figure><div class="sheet" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"{image(path, caption)}</div>"
        f'<figcaption>{escape(caption)} (<a href="{escape(link)}">PNG</a>)</figcaption></figure>\n'
    )


def verdict(text: str) -> str:
    """A verdict, coloured."""
    return f'<span class="verdict {text.replace(" ", "-")}">{escape(text)}</span>'


def from_markdown(text: str) -> str:
    """The HTML of the Markdown that experiments write: headings, tables, lists, paragraphs.

    The first heading is left out: the page has its own.

    Example:
      >>> print(from_markdown("# A\\n\\n## B\\n\\n- *c* < 1\\n- d"))
      <h3>B</h3>
      <ul><li><em>c</em> &lt; 1</li><li>d</li></ul>
    """
    parts = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        if lines[0].startswith("# "):
            continue
        if lines[0].startswith("## "):
            parts.append(f"<h3>{inline(lines[0][3:])}</h3>")
        elif lines[0].startswith("|") and len(lines) > 1:
            parts.append(_markdown_table(lines).rstrip())
        elif all(line.startswith("- ") for line in lines):
            parts.append(
                "<ul>" + "".join(f"<li>{inline(line[2:])}</li>" for line in lines) + "</ul>"
            )
        elif block == "---":
            parts.append("<hr>")
        else:
            parts.append(f"<p>{inline(' '.join(lines))}</p>")
    return "\n".join(parts)


def _markdown_table(lines: Sequence[str]) -> str:
    rows = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines]
    header, rule, *body = rows
    left = sum(cell.startswith(":") for cell in rule)
    of_paper = [position for position, row in enumerate(body) if row[0].startswith("*the paper")]
    html = [[inline(cell) for cell in row] for row in body]
    return table([inline(cell) for cell in header], html, left=left, of_paper=of_paper)


def inline(text: str) -> str:
    """Code, bold and italic text inside a line of Markdown, everything else escaped."""
    text = escape(text, quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text)
