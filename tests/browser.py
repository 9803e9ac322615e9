"""Opens pages as a person's browser does, offline, and reads what becomes of them."""

import html
import itertools
import json
import re
import shutil
import subprocess

import pytest

NAMES = ("chromium", "google-chrome", "chromium-browser")
OPTIONS = (
    "headless", "no-sandbox", "disable-gpu", "dump-dom", "virtual-time-budget=8000", "disable-quic",
    "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync",
    "enable-logging=stderr",
)  # fmt: skip
LISTENER = """<head>
<script>
const pageErrors = [];
window.addEventListener("error", event => pageErrors.push(event.message));
window.addEventListener("unhandledrejection", event => pageErrors.push(String(event.reason)));
function report(outcome) {
  outcome.fetched = performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:"));
  outcome.errors = pageErrors;
  document.body.append(Object.assign(document.createElement("pre"),
    { id: "outcome", textContent: JSON.stringify(outcome) }));
}
</script>"""


class Browser:
    """A headless browser with a fresh profile for each page; skips the test where there is none."""

    def __init__(self, folder):
        self._program = next(filter(None, map(shutil.which, NAMES)), None)
        if self._program is None:
            pytest.skip(f"no browser: none of {', '.join(NAMES)}")
        self._folder = folder
        self._numbers = itertools.count()

    def dom(self, page):
        """The document that becomes of a page."""
        command = [
            self._program,
            *(f"--{option}" for option in OPTIONS),
            f"--user-data-dir={self._folder / f'profile{next(self._numbers)}'}",
            page.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert "Uncaught" not in done.stderr
        return done.stdout

    def outcome(self, page, script, *, before=""):
        """What a script that acts as a person tells `report`, with what was fetched and the page's errors.

        Another script may run before the page's own.
        """
        text = page.read_text(encoding="utf-8")
        assert text.count("</body>") == text.count("<head>") == 1
        acted = self._folder / f"page{next(self._numbers)}.html"
        end = f"<script>{script}</script></body>"
        start = f"{LISTENER}<script>{before}</script>"
        acted.write_text(text.replace("<head>", start).replace("</body>", end), encoding="utf-8")
        found = re.search(r'<pre id="outcome">(.*?)</pre>', self.dom(acted), re.DOTALL)
        assert found is not None
        return json.loads(html.unescape(found[1]))
