"""HTML pages as text and in a real browser, shared by the tests of all that write them."""

import base64
import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Protocol

HOSTILE = "</script><img src=x onerror=alert(1)>"

# Text as it may come from outside, and as a page shows it.
TEXTS = [
    (HOSTILE, HOSTILE),
    ("<!--<script>", "<!--<script>"),
    ("\"quotes' &amp; <b>", "\"quotes' &amp; <b>"),
    ("line\u2028and\nline", "line\\u2028and\\u000aline"),
    ("\u202egnp.exe", "\\u202egnp.exe"),
    ("caf\udce9 \ud800", "caf\\xe9 \\ud800"),
    ("日本語　👩\u200d🚀 فيديو", "日本語　👩\u200d🚀 فيديو"),
]


class Elements(HTMLParser):
    """The tags of a page in order, and the JSON in its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.ended: list[str] = []
        self.content: list[str] = []
        self.inside = False
        self.feed(text)
        self.close()

    def within(self, tag: str, **attributes: str) -> list[str]:
        """The text directly in the elements of that tag with those attributes."""
        return [
            content
            for (name, found), content in zip(self.tags, self.content, strict=True)
            if name == tag and attributes.items() <= dict(found).items()
        ]

    @property
    def json(self) -> list[Any]:
        return [json.loads(content) for content in self.within("script", type="application/json")]

    def check_policy(self, media: str = "") -> None:
        """The browser may run the one script and fetch nothing, or only the `media` that the policy names."""
        name = ("http-equiv", "Content-Security-Policy")
        (policy,) = (dict(attributes)["content"] for _, attributes in self.tags if name in attributes)
        (script,), (css,) = self.within("script", type="module"), self.within("style")
        assert policy == (
            f"default-src 'none'; img-src data:;{media} script-src '{_digest(script)}'; style-src '{_digest(css)}'; "
            "base-uri 'none'; form-action 'none'"
        )
        running = [dict(attributes).get("type") for tag, attributes in self.tags if tag == "script"]
        assert set(running) - {"application/json"} == {"module"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))
        self.content.append("")
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.ended.append(tag)
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.content[-1] += data


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


class Page:
    """A page in a browser, looked up by CSS `selectors`."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.browser = browser
        self.path = path

    def run(self, script: str, *args: object) -> Any:
        return self.browser.execute_script(script, *args)

    def texts(self, selector: str) -> list[str]:
        script = "return Array.from(document.querySelectorAll(arguments[0]), (e) => e.textContent)"
        texts: list[str] = self.run(script, selector)
        return [text.replace("\u00a0", " ") for text in texts]

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def wait(self, condition: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 10, poll_frequency=0.02).until(lambda _: self.run(f"return {condition}"))

    def focused(self) -> str:
        """The focused element, whose focus must be visible: its name, class, label or text."""
        name, outline = self.run(
            "const e = document.activeElement;"
            "const name = e.name || e.getAttribute('class') || e.ariaLabel || e.textContent;"
            "return [name, getComputedStyle(e).outlineStyle]"
        )
        assert outline != "none", name
        return str(name)

    def brightness(self, scheme: str) -> int:
        """The red of its background, 0 to 255, for users who prefer `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        try:
            script = "return Number(getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0])"
            return int(self.run(script))
        finally:
            self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    def check_width(self, width: int) -> None:
        """Nothing extends beyond a window of that width."""
        from testing.browser import resize

        resize(self.browser, width)
        visible, wide = self.run("const page = document.documentElement; return [page.clientWidth, page.scrollWidth]")
        assert wide == visible <= width

    def without_javascript(self) -> str:
        """The page's text without JavaScript."""
        from selenium.webdriver.common.by import By

        self.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        try:
            self.browser.get(self.path.as_uri())
            return str(self.browser.find_element(By.TAG_NAME, "body").text)
        finally:
            self.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


class Show(Protocol):
    """The fixture `show`: opens a page from disk, at the place `hash` of it."""

    def __call__(self, text: str, hash: str = "") -> Page: ...
