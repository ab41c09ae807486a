"""What a page says, read back from its text."""

from __future__ import annotations

import re


def cells(html: str, caption: str) -> list[list[str]]:
    """The body of the table with that caption."""
    body = html.split(f"<caption>{caption}</caption>")[1].split("</table>")[0]
    body = body.split("<tbody>")[1]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in body.split("<tr")[1:]]
    return [[str(cell) for cell in row] for row in rows]
