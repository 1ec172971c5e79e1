"""A page of HTML taken apart."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Open tags, identifiers, references and pictures of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.mistakes: list[str] = []
        self.identifiers: list[str] = []
        self.addresses: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.headings: list[int] = []
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

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(tag)


@dataclass
class TableCell:
    """`text` without the footnote's mark and the interval, which stand apart; `note` is the footnote."""

    attributes: dict[str, str | None]
    text: str = ""
    interval: str = ""
    note: str | None = None

    @property
    def columns(self) -> int:
        return int(self.attributes.get("colspan") or 1)


@dataclass
class HtmlTable:
    """A table with its id, the section that it lies in, and the headings of the parts to be opened around it."""

    name: str | None
    section: str | None
    within: tuple[str, ...]
    rows: list[list[TableCell]] = field(default_factory=list)
    headings: int = 0  # so many of the rows

    def lines(self) -> list[dict[str, TableCell]]:
        """Every row below the headings, by heading: the group's where there is one, then the column's own."""
        spread = [[cell.text for cell in row for _ in range(cell.columns)] for row in self.rows[: self.headings]]
        titles = [" ".join(filter(None, column)) for column in zip(*spread, strict=True)]
        return [dict(zip(titles, row, strict=True)) for row in self.rows[self.headings :]]


class Tables(HTMLParser):
    """Every table of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[HtmlTable] = []
        self._section: str | None = None
        self._within: list[str] = []
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def named(self, name: str) -> HtmlTable:
        (table,) = [table for table in self.tables if table.name == name]
        return table

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self._inside.append(tag)
        if tag == "section":
            self._section = values["id"]
        elif tag == "details":
            self._within.append("")
        elif tag == "table":
            self.tables.append(HtmlTable(values.get("id"), self._section, tuple(self._within)))
        elif tag == "tr":
            self.tables[-1].rows.append([])
            self.tables[-1].headings += "thead" in self._inside
        elif tag in ("td", "th"):
            self.tables[-1].rows[-1].append(TableCell(values))
        elif tag == "a" and "sup" in self._inside:
            self.tables[-1].rows[-1][-1].note = values["title"]

    def handle_endtag(self, tag):
        self._inside.pop()
        if tag == "details":
            self._within.pop()

    def handle_data(self, text):
        if "summary" in self._inside:
            self._within[-1] += text
        elif {"td", "th"} & {*self._inside} and "sup" not in self._inside:
            cell = self.tables[-1].rows[-1][-1]
            if "span" in self._inside:
                cell.interval += text
            else:
                cell.text += text
