"""Check that every link, anchor and image of the built pages leads somewhere, without a network.

    python docs/check_links.py docs/_build/html

Prints what is broken and exits with status 1, or prints how many pages and links there are.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FROM_THE_NETWORK = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""What a browser would fetch by itself: none of it may lie elsewhere."""


class Page(HTMLParser):
    """The anchors of one page and what it refers to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []
        self.fetched: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element's anchor and its targets."""
        given = {name: value for name, value in attrs if value}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        self.targets += [given[name] for name in ("href", "src") if name in given]
        self.targets += [entry.split()[0] for entry in given.get("srcset", "").split(",") if entry.strip()]
        own = given.get(FROM_THE_NETWORK.get(tag, ""), "")
        if urlsplit(own).netloc and given.get("rel") != "canonical":
            self.fetched.append(own)


def check(root: Path) -> tuple[int, int, list[str]]:
    """Return the number of pages and of internal links below ``root``, and the faults."""
    pages = {path.resolve(): Page(path) for path in sorted(root.rglob("*.html"))}
    links, faults = 0, []
    for path, page in pages.items():
        name = path.relative_to(root.resolve())
        faults += [f"{name}: fetches {url}" for url in page.fetched]
        for target in page.targets:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            links += 1
            aim = (path.parent / unquote(url.path)).resolve() if url.path else path
            aim = aim / "index.html" if aim.is_dir() else aim
            if not aim.is_file():
                faults.append(f"{name}: no file {target}")
            elif url.fragment and aim in pages and unquote(url.fragment) not in pages[aim].anchors:
                faults.append(f"{name}: no anchor {target}")
    return len(pages), links, faults


def main() -> int:
    """Check the folder that is named on the command line."""
    pages, links, faults = check(Path(sys.argv[1]))
    print("\n".join(sorted(set(faults))) or f"{pages} pages, whose {links:,} internal links and images all resolve.")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
