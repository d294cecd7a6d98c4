"""`serve` behind a real nginx, with strangers at the door. Debian's package `nginx-light`; `make
test-nginx` runs it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3

from stripe_feed.sandbox import Sandbox

pytestmark = [
    pytest.mark.nginx,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx"),
]

CONF = Path(__file__).parents[1] / "pipelines" / "nginx.conf"
BOUND = 60.0
RULES = '[[trigger]]\nname = "new"\npreset = "customer_created"\ndeliver = { file = "new.jsonl" }\n'


@dataclass
class Behind:
    """`serve` at `own`, and nginx before it at `front`; the token that `serve` made for itself."""

    box: Sandbox
    folder: Path
    own: int
    front: int
    token: str
    http: urllib3.PoolManager

    def ask(
        self, path: str, method: str = "GET", port: int | None = None, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        scheme = "http" if port else "https"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(
            method,
            f"{scheme}://127.0.0.1:{port or self.front}{path}",
            headers=named,
            redirect=False,
        )


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("behind")
    (folder / "triggers.toml").write_text(RULES, encoding="utf-8")
    box = Sandbox(now=int(time.time()), real_time=True, seed=3, customers=5)
    with box.serve() as url, serving(folder, box, url) as (own, token), nginx(folder, own) as front:
        http = urllib3.PoolManager(
            retries=False,
            timeout=20,
            ca_certs=str(folder / "own.pem"),
            assert_hostname="feed.example.com",
            maxsize=50,
        )
        found = Behind(box, folder, own, front, token, http)
        until = time.monotonic() + BOUND
        while json.loads(found.ask("/health", port=own).data)["synced_at"] is None:
            assert time.monotonic() < until
            found.ask("/changes?wait=1", port=own, Authorization=f"Bearer {token}")
        yield found


@contextmanager
def serving(folder: Path, box: Sandbox, url: str) -> Iterator[tuple[int, str]]:
    environment = {
        **os.environ,
        "STRIPE_API_BASE": url,
        "STRIPE_SECRET_KEY": box.key,
        "STRIPE_WEBHOOK_SECRET": "whsec_test_of_nginx",
        "DLT_DATA_DIR": str(folder / "dlt"),
    }
    command = [
        sys.executable,
        "-m",
        "stripe_feed.cli.main",
        "serve",
        "--port",
        "0",
        "--every",
        "1s",
        "--max-rps",
        "1000",
    ]
    with (
        open(folder / "said", "wb") as said,
        subprocess.Popen(
            ["prlimit", "--nofile=1024:1024", *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=said,
        ) as process,
    ):
        try:
            yield _opened(folder / "said")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(BOUND) == 0


def _opened(said: Path) -> tuple[int, str]:
    until = time.monotonic() + BOUND
    while not (
        found := re.search(
            r"http://127\.0\.0\.1:(\d+)/\?token=([0-9a-f]{48}) ", said.read_text(encoding="utf-8")
        )
    ):
        assert time.monotonic() < until, said.read_text(encoding="utf-8")
        threading.Event().wait(0.1)
    return int(found[1]), found[2]


@contextmanager
def nginx(folder: Path, own: int) -> Iterator[int]:
    """nginx with our file: only its ports, its certificate and the places of its own files are
    others.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        front = free.getsockname()[1]
    certificate = folder / "own.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=feed.example.com",
            "-addext",
            "subjectAltName=DNS:feed.example.com",
            "-days",
            "2",
            "-keyout",
            str(folder / "own.key"),
            "-out",
            str(certificate),
        ],
        check=True,
        capture_output=True,
    )
    site = (
        CONF.read_text(encoding="utf-8")
        .replace("listen 443", f"listen 127.0.0.1:{front}")
        .replace(":8787", f":{own}")
    )
    site = re.sub(
        r"/etc/ssl/\S+\.pem",
        str(certificate),
        re.sub(r"/etc/ssl/\S+\.key", str(folder / "own.key"), site),
    )
    (folder / "site.conf").write_text(site, encoding="utf-8")
    places = " ".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; user root; pid {folder}/pid; error_log {folder}/errors; events {{ worker_connections 8000; }} "
        f"worker_rlimit_nofile 10000; http {{ access_log off; {places} include {folder}/site.conf; }}",
        encoding="utf-8",
    )
    with subprocess.Popen(
        ["nginx", "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL
    ) as process:
        try:
            until = time.monotonic() + BOUND
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", front), timeout=1):
                    break
                assert time.monotonic() < until and process.poll() is None
            yield front
        finally:
            process.terminate()


def test_strangers_get_401_on_all_but_webhooks_and_health(behind: Behind) -> None:
    for path in (
        "/",
        "/changes",
        "/changes?limit=1",
        "/changes/stream",
        "/metrics",
        "/page.css",
        "/nowhere",
        "/?token=" + "0" * 48,
    ):
        for name, value in (
            ("Host", "localhost"),
            ("X_Forwarded_For", "127.0.0.1"),
            ("Cookie", "stripe_feed=1"),
        ):
            for port in (None, behind.own):
                assert behind.ask(path, "GET", port, **{name: value}).status == 401
    for path in ("/retry", "/changes/ack"):
        assert behind.ask(path, "POST").status == 401
    assert behind.ask("/health").status == 200
    assert behind.ask("/stripe", "POST").status == 400


def test_the_page_opens_by_its_link_and_its_form_works(behind: Behind) -> None:
    first = behind.ask(f"/?token={behind.token}")
    assert (first.status, first.headers["location"]) == (303, "/")
    assert "Secure" in first.headers["set-cookie"]
    held = first.headers["set-cookie"].partition(";")[0]
    page = behind.ask("/", Cookie=held)
    assert page.status == 200
    key = re.search(rb'name="key" value="([^"]+)"', page.data)
    assert key is None  # nothing failed: there is no form
    sent = behind.ask(
        "/retry", "POST", Cookie=held, Origin="https://127.0.0.1", Sec_Fetch_Site="same-origin"
    )
    assert sent.json()["error"].startswith("This form is from another run")


@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        b"POST /stripe HTTP/1.1\r\nHost: x\r\nX-A: ",
        b"POST /stripe HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{",
    ],
)
def test_2000_idle_connections_stop_nothing(behind: Behind, through: bool, text: bytes) -> None:
    port = behind.front if through else behind.own
    held = []
    for _ in range(2_000):
        one = socket.create_connection(("127.0.0.1", port), timeout=20)
        with suppress(OSError):
            one.sendall(text)
        held.append(one)
    behind.box.create("customers", name="While strangers wait")
    began, slowest = time.monotonic(), 0.0
    before = fired(behind.folder)
    while fired(behind.folder) == before:
        asked = time.monotonic()
        assert behind.ask("/health", port=behind.own).status == 200
        slowest = max(slowest, time.monotonic() - asked)
        assert time.monotonic() < began + 2 * BOUND + 60
        for one in held[::100]:
            with suppress(OSError):
                one.sendall(b"x")
        threading.Event().wait(0.5)
    for one in held:
        one.close()
    assert slowest < max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # turns on a busy machine
    assert (behind.folder / "said").stat().st_size < 100_000


def fired(folder: Path) -> int:
    """How many messages were delivered so far."""
    with sqlite3.connect(folder / "stripe_feed.feed.sqlite") as db:
        return int(db.execute("select count(*) from messages where state = 'sent'").fetchone()[0])
