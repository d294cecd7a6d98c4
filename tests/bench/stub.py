"""Serve an account of any size, whose pages are made as they are asked for: `python stub.py OBJECTS`.

40 % customers, 40 % invoices and 20 % subscriptions, evenly over the years, each a copy of one object
of the sandbox with ids of its own; all other lists are empty. Prints its URL and a key as JSON, and
ends with its standard input.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from stripe_feed.sandbox import Sandbox

SHARES = {"customers": 4, "invoices": 4, "subscriptions": 2}  # of ten
FIRST, YEARS = 1_500_000_000, 8 * 365 * 86_400  # seconds
ID, CREATED = "@id@", "@created@"


class Kind:
    """The list of one kind of object: number n of `count` is the n-th oldest."""

    def __init__(self, template: str, count: int) -> None:
        self.template, self.count = template, count

    def created(self, n: int) -> int:
        return FIRST + n * YEARS // self.count

    def below(self, second: int) -> int:
        """How many objects were created before a second."""
        return max(0, min(self.count, -((FIRST - second) * self.count // YEARS)))

    def page(self, query: dict[str, str]) -> str:
        end = self.below(int(query["created[lt]"])) if "created[lt]" in query else self.count
        if "starting_after" in query:
            end = min(end, int(query["starting_after"][-12:]))
        start = self.below(int(query.get("created[gte]", 0)))
        first = max(start, end - int(query.get("limit", 10)))
        rows = ",".join(self.body(n) for n in range(end - 1, first - 1, -1))
        return page_of(rows, first > start)

    def body(self, n: int) -> str:
        return self.template.replace(ID, f"{n:012d}").replace(CREATED, str(self.created(n)))


def page_of(rows: str, has_more: bool) -> str:
    return f'{{"object":"list","data":[{rows}],"has_more":{json.dumps(has_more)},"url":"/"}}'


def template(body: dict[str, Any]) -> str:
    """The JSON of an object, with places for its own ids and its time of creation."""
    own = {body["id"], *(item["id"] for item in _items(body))}
    text = json.dumps({**body, "created": CREATED}, separators=(",", ":"))
    for id in own:
        text = text.replace(f'"{id}"', f'"{id.partition("_")[0]}_{ID}"')
    return text.replace(f'"{CREATED}"', CREATED)


def _items(body: dict[str, Any]) -> list[dict[str, Any]]:
    lists = (body.get("items"), body.get("lines"))
    return [item for embedded in lists if embedded for item in embedded["data"]]


def main(objects: int) -> None:
    box = Sandbox(seed=1, customers=3, invoices=3, subscriptions=3)
    with box.serve() as url:
        found = {path: _get(f"{url}/v1/{path}", box.key) for path in ("account", *SHARES)}
    kinds = {
        name: Kind(template(found[name]["data"][0]), objects * tenths // 10)
        for name, tenths in SHARES.items()
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        served = 0

        def do_GET(self) -> None:
            path = urlsplit(self.path)
            name = path.path.removeprefix("/v1/")
            Handler.served += 1
            if name == "account":
                text = json.dumps(found["account"])
            elif name == "served":
                text = json.dumps([Handler.served, time.process_time()])
            else:
                kind = kinds.get(name)
                text = kind.page(dict(parse_qsl(path.query))) if kind else page_of("", False)
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    said = {"url": f"http://127.0.0.1:{server.server_port}", "key": box.key}
    print(json.dumps(said), flush=True)
    sys.stdin.read()


def _get(url: str, key: str) -> Any:
    from urllib.request import Request, urlopen

    with urlopen(Request(url, headers={"Authorization": f"Bearer {key}"})) as answer:
        return json.loads(answer.read())


if __name__ == "__main__":
    main(int(sys.argv[1]))
