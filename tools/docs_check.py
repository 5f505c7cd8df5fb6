"""Look at the built documentation in a browser: `make docs-check`.

Every page is opened at the widths of a laptop, a large screen and a telephone. Wrong is: a page that scrolls sideways
or an element that sticks out of it, code or a table that is cut, an article squeezed by the columns beside it, a top
bar of more than one line or without the API reference, an empty left column, a picture that is missing or has no
alternative text, a link inside the site that leads nowhere, a request to anybody else's server, an error in the
console, and a search that does not find what readers look for. Screenshots of the pages that are written by hand go
into a folder.

    python tools/docs_check.py build/docs --screenshots build/screenshots

The browser is the Chromium or Chrome of this system, or what CHROMIUM names; without either, the one that
`python -m playwright install chromium` brings.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Response, Route, sync_playwright

WIDTHS = (1400, 1920, 390)
TELEPHONE = 390
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",  # containers have no user namespaces to make one of
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Of what the site's search finds, so many results must hold the page that searched.json names for the word.
FIRST = 3
SEARCHED = Path(__file__).parent.parent / "docs" / "searched.json"
# Pages that autosummary makes: as many as there are functions, and alike.
GENERATED = "api/generated/"
# What Sphinx makes for itself: no section, hence nothing for the left column.
ALONE = ("index.html", "genindex.html", "search.html", "py-modindex.html")

PROBE = """
() => {
  const wide = [], cut = [], tables = [], pictures = [];
  const root = document.documentElement;
  // Code and tables may scroll in boxes of their own; nothing else may.
  const boxes = "pre, .pst-scrollable-table-container";
  for (const e of document.querySelectorAll("article *, header *, .bd-sidebar-secondary a *, .bd-sidebar-primary a")) {
    const right = e.getBoundingClientRect().right, inside = e.parentElement.closest(boxes);
    const column = e.closest("article") ?? root;
    const limit = Math.min(column.getBoundingClientRect().right, root.clientWidth);
    if (right > limit + 1 && !inside && e.checkVisibility() && e.getBoundingClientRect().width)
      wide.push(e.tagName.toLowerCase() + ": " + e.textContent.trim().replace(/\\s+/g, " ").slice(0, 60));
  }
  for (const e of document.querySelectorAll("article pre")) {
    if (e.scrollWidth > e.clientWidth + 1) {
      const lines = e.textContent.split("\\n").sort((a, b) => b.length - a.length);
      cut.push(lines[0].trim().slice(0, 100));
    }
  }
  for (const e of document.querySelectorAll("article .pst-scrollable-table-container"))
    if (e.scrollWidth > e.clientWidth + 1) tables.push(e.textContent.trim().replace(/\\s+/g, " ").slice(0, 60));
  for (const e of document.querySelectorAll("article img"))
    if (!e.naturalWidth || !e.alt.trim()) pictures.push(e.getAttribute("src") + (e.alt ? "" : " (no text)"));
  const items = [...document.querySelectorAll(".bd-header .navbar-nav > .nav-item")].filter(e => e.checkVisibility());
  const column = document.querySelector(".bd-sidebar-primary");
  const article = document.querySelector("article");
  return {
    sideways: root.scrollWidth - root.clientWidth,
    wide, cut, tables, pictures,
    article: article ? article.clientWidth : 0,
    bar: items.map(e => [e.textContent.trim(), Math.round(e.getBoundingClientRect().top)]),
    column: column && column.checkVisibility() ? column.querySelectorAll(".bd-links a").length : null,
  };
}
"""
ADDRESSES = """
() => ({
  links: [...document.querySelectorAll("a[href]")].map(e => e.href),
  ids: [...document.querySelectorAll("[id], a[name]")].map(e => e.id || e.name),
})
"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: what is missing is reported once, by the page that wants it."""


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *whose: Any) -> None:
        """Say nothing of a browser that goes to the next page before it has all of the last one."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*whose)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of the folder on this machine alone."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def looks_wrong(name: str, width: int, found: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a page at a width, by what `PROBE` found."""
    if found["sideways"] > 0:
        yield f"scrolls sideways by {found['sideways']} pixels"
    for element in found["wide"][:3]:
        yield f"sticks out: {element}"
    for picture in found["pictures"]:
        yield f"picture missing: {picture}"
    if width == TELEPHONE:
        # Code and tables scroll in their boxes there, and the columns and the bar are behind buttons.
        return
    for line in found["cut"]:
        yield f"code is cut: {line}"
    for table in found["tables"]:
        yield f"a table is cut: {table}"
    if name != "search.html" and found["article"] < 700:
        yield f"the article is squeezed to {found['article']} pixels"
    names, heights = [text for text, _ in found["bar"]], {top for _, top in found["bar"]}
    if len(heights) != 1:
        yield f"the top bar has {len(heights)} lines: {names}"
    if "API reference" not in names:
        yield f"the top bar lacks the API reference: {names}"
    if name not in ALONE and not found["column"]:
        yield "the left column is empty"


class Checker:
    """Opens pages, and keeps what is wrong with them."""

    def __init__(self, context: BrowserContext, base: str, folder: Path, screenshots: Path) -> None:
        self.base, self.folder, self.screenshots = base, folder, screenshots
        self.wrong: list[str] = []
        self.links: dict[str, set[str]] = {}
        self.ids: dict[str, set[str]] = {}
        self.page = context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.report(f"script: {error}"))
        self.page.on("response", self._answered)
        self.page.route(lambda address: not address.startswith((base, "data:")), self._elsewhere)
        self.name = ""

    def report(self, text: str) -> None:
        self.wrong.append(f"{self.name}: {text}")

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.report(f"console: {message.text}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.report(f"{response.status}: {response.url}")

    def _elsewhere(self, route: Route) -> None:
        self.report(f"asks somebody else's server: {route.request.url}")
        route.abort()

    def look(self, name: str) -> None:
        """Open a page and look at it at all widths."""
        self.name = name
        self.page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        self.page.goto(self.base + name, wait_until="load")
        addresses = self.page.evaluate(ADDRESSES)
        self.links[name], self.ids[name] = set(addresses["links"]), set(addresses["ids"])
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 900})
            for text in looks_wrong(name, width, self.page.evaluate(PROBE)):
                self.report(f"at {width}: {text}")
            if not name.startswith(GENERATED):
                path = self.screenshots / f"{name.removesuffix('.html').replace('/', '-')}-{width}.png"
                self.page.screenshot(path=path, full_page=True)

    def search(self, word: str, page: str) -> None:
        """Ask the site's own search for a word: a page must be among the first that it finds."""
        self.name = f"search for {word!r}"
        self.page.goto(f"{self.base}search.html?q={word}", wait_until="load")
        self.page.wait_for_function(
            "() => /found|did not match/.test(document.querySelector('#search-results')?.textContent ?? '')"
        )
        links = self.page.locator("#search-results ul.search > li > a").evaluate_all("all => all.map(e => e.href)")
        found = [urlsplit(link).path.strip("/").removesuffix(".html") for link in links[:FIRST]]
        if page not in found:
            self.report(f"{page} is not among the first: {found}")

    def follow_links(self) -> None:
        """Whether every link inside the site leads to a file, and to a place in it."""
        for name, links in self.links.items():
            self.name = name
            for link in sorted(link for link in links if link.startswith(self.base)):
                address, fragment = urldefrag(link)
                target = unquote(urlsplit(address).path).lstrip("/") or "index.html"
                if not (self.folder / target).is_file():
                    self.report(f"dead link: {target}")
                elif fragment and target in self.ids and unquote(fragment) not in self.ids[target]:
                    self.report(f"dead link: {target}#{fragment}")


def browser_path() -> str | None:
    """The system's browser; None: playwright's own."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def check(folder: Path, screenshots: Path) -> list[str]:
    """What is wrong with the site."""
    shutil.rmtree(screenshots, ignore_errors=True)
    screenshots.mkdir(parents=True)
    pages = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.html") if "_static" not in p.parts)
    with served(folder) as base, sync_playwright() as playwright:
        # playwright gives it a new profile, and removes that afterwards
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        checker = Checker(browser.new_context(), base, folder, screenshots)
        for name in pages:
            checker.look(name)
        checker.follow_links()
        searches = json.loads(SEARCHED.read_text(encoding="utf-8"))
        for word, page in searches.items():
            checker.search(word, page)
        browser.close()
    print(f"{len(pages)} pages at {', '.join(map(str, WIDTHS))} pixels, {len(searches)} searches; {screenshots}")
    return checker.wrong


def main() -> int:
    """Check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="the built documentation")
    parser.add_argument("--screenshots", type=Path, default=Path("build/screenshots"), help="default: %(default)s")
    options = parser.parse_args()
    if not (options.folder / "index.html").is_file():
        parser.error(f"no documentation in {options.folder}: make docs builds it")
    wrong = check(options.folder, options.screenshots)
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
