"""A page of HTML taken apart."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Open tags, identifiers, references, pictures, headings and tables of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.mistakes: list[str] = []
        self.identifiers: list[str] = []
        self.addresses: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.headings: list[int] = []
        self.tables: dict[str | None, list[list[str]]] = {}  # by id, rows of cells, without spaces
        self._rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "id" in values:
            self.identifiers.append(values["id"])
        self.addresses += [values[name] for name in ("href", "src", "srcset", "action") if name in values]
        if tag == "img":
            self.pictures.append(values)
        elif tag == "table":
            self._rows = self.tables.setdefault(values.get("id"), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1] += [""] * int(values.get("colspan") or 1)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(tag)

    def handle_data(self, text):
        if {"td", "th"} & {*self.open}:
            self._rows[-1][-1] += "".join(text.split())
