"""A headless Chromium driven through its debugging pipe: no driver program, no package."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
]  # fmt: skip
KEYS = {"Escape": 27, "Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
        "ArrowDown": 40}  # fmt: skip
PATIENCE = 60  # seconds until a reply of the browser counts as lost


def find_chromium():
    """The browser's path, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """A running browser. `events` holds what pages reported: (session, method, parameters)."""

    def __init__(self, to, back):
        self.to, self.back = to, back
        self.rest = b""
        self.number = 0
        self.events = []

    def call(self, method, session=None, **params):
        """The result of one command of the DevTools protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for reply in self.messages(end - time.monotonic()):
                if reply.get("id") == self.number:
                    assert "error" not in reply, f"{method}: {reply['error']}"
                    return reply["result"]
                if "method" in reply:
                    self.events.append(
                        (reply.get("sessionId"), reply["method"], reply.get("params", {}))
                    )
        raise TimeoutError(f"Chromium did not answer {method} within {PATIENCE} s")

    def messages(self, seconds):
        """Complete messages that have come."""
        if not select.select([self.back], [], [], max(0, seconds))[0]:
            return []
        *whole, self.rest = (self.rest + os.read(self.back, 1 << 20)).split(b"\0")
        return [json.loads(text) for text in whole]

    def page(self, path, *, javascript=True, width=1280, height=900, dark=False):
        """A tab that has loaded a local file."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setScriptExecutionDisabled", value=not javascript)
        tab.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        went = tab.call("Page.navigate", url=Path(path).resolve().as_uri())
        assert "errorText" not in went, went["errorText"]
        tab.wait("document.readyState == 'complete'")
        return tab


class Tab:
    """One page."""

    def __init__(self, browser, session):
        self.browser, self.session = browser, session

    def call(self, method, **params):
        """The result of one command for this page."""
        return self.browser.call(method, self.session, **params)

    def resize(self, width, height):
        """Set the size of the page's window."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def look(self, expression):
        """The value of a JavaScript expression, looked at from outside the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression):
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.look(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def click(self, selector):
        """Press and release the left button in the middle of an element."""
        x, y = self.look(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text):
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key):
        """Press a named key."""
        for kind in ("keyDown", "keyUp"):
            code = KEYS[key]
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode=code, **text)  # fmt: skip

    def screenshot(self, file, *, whole=False):
        """Write a picture of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def events(self, method):
        """What this page reported under a name."""
        mine = (e for e in self.browser.events if e[0] == self.session)
        return [params for _, name, params in mine if name == method]

    def complaints(self):
        """Errors of the page's script, of its policy, and on its console."""
        entries = [e["entry"] for e in self.events("Log.entryAdded")]
        return [
            *(e["exceptionDetails"] for e in self.events("Runtime.exceptionThrown")),
            *(e for e in self.events("Runtime.consoleAPICalled") if e["type"] == "error"),
            *(entry for entry in entries if entry["level"] in ("error", "warning")),
        ]

    def requests(self):
        """Every address the page asked for."""
        return [e["request"]["url"] for e in self.events("Network.requestWillBeSent")]


@contextmanager
def chromium(profile):
    """Start the browser with an empty profile; ends it and its children."""
    to_them, to = os.pipe()
    back, back_them = os.pipe()
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_them, back_them)]
    log = str(profile / "chromium.log")
    child = os.posix_spawn(
        find_chromium(),
        [find_chromium(), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, theirs[0], 3),
            (os.POSIX_SPAWN_DUP2, theirs[1], 4),
        ],
        setpgroup=0,
    )
    for fd in (to_them, back_them, *theirs):
        os.close(fd)
    try:
        yield Browser(to, back)
    finally:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(to)
        os.close(back)
