# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven through a pair of pipes: no driver and no port is needed."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(word), fcntl.F_DUPFD, 10) for word in sys.argv[1:3]]
for number, end in zip((3, 4), ends):  # Chromium reads commands from 3 and answers on 4.
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
COMPLAINTS = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


class Browser:
    """One page at a time: `show` it, `ask` it, `picture` it; `complaints` is what it logged."""

    def __init__(self, profile: Path, patience: float = 60.0):
        self.patience, self.numbers, self.rest = patience, itertools.count(1), b""
        self.complaints, self.loaded, self.session = [], False, None
        to_browser, self.to_browser = os.pipe()
        self.from_browser, from_browser = os.pipe()
        ends = (to_browser, from_browser)
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", LAUNCH, *map(str, ends), CHROMIUM, *FLAGS,
             f"--user-data-dir={profile}"],
            pass_fds=ends, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            self._open_page()
        except BaseException:
            self.close()
            raise

    def _open_page(self):
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.to_browser)
        os.close(self.from_browser)

    def show(self, address: str, *, width: int, dark: bool = False, height: int = 740):
        """Load a page on a screen of `width` CSS pixels; a phone where it is narrow."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.complaints, self.loaded = [], False
        self.command("Page.navigate", url=address)
        self._hear(lambda: self.loaded)

    def ask(self, expression: str):
        """The value of a JavaScript expression on the page."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise ValueError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def picture(self, path: Path, *, whole: bool = True):
        """Write a PNG of the page."""
        answer = self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(answer["data"]))

    def command(self, method: str, **params):
        message = {"id": next(self.numbers), "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        answer = {}
        self._hear(lambda: answer, number=message["id"], answer=answer)
        if "error" in answer:
            raise ValueError(f"{method}: {answer['error']}")
        return answer.get("result", {})

    def _hear(self, enough, number=None, answer=None):
        end = time.monotonic() + self.patience
        while not enough():
            if not select.select([self.from_browser], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"chromium said nothing for {self.patience} s.")
            chunk = os.read(self.from_browser, 1 << 16)
            if not chunk:
                raise EOFError("chromium is gone.")
            *messages, self.rest = (self.rest + chunk).split(b"\0")
            for message in map(json.loads, messages):
                if number is not None and message.get("id") == number:
                    answer.update(message)
                self.loaded |= message.get("method") == "Page.loadEventFired"
                if message.get("method") in COMPLAINTS:
                    self.complaints.append(json.dumps(message["params"]))
