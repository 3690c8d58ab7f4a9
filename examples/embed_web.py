"""A web service on this machine: post a picture, get what magrt says of it.

    python examples/embed_web.py --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/scan               JSON: score, verdict, regions ...
    curl --data-binary @photo.jpg http://127.0.0.1:8000/mask -o mask.png   each pixel's probability as 8-bit PNG
    curl http://127.0.0.1:8000/health

A scanner belongs to one thread at a time, so one thread owns it and takes what has come meanwhile as one batch. Ctrl-C
or SIGTERM stops it when the requests in hand have their answers. It trusts who can reach it: keep it on the loopback.
"""

import argparse
import json
import queue
import signal
import sys
import threading
from concurrent.futures import Future
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt import Failure, Finding, PictureError, Scanner
from mag_rt.pictures import decode

MOST_BYTES = 50 << 20
"""Of a posted file."""
MOST_AT_ONCE = 4
"""Pictures in memory. Who comes on top of them waits, and after `PATIENCE` seconds is told so."""
PATIENCE = 30

Job = tuple[NDArray[np.uint8], "Future[Finding]"]


class Service(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for the answers

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.jobs: queue.Queue[Job | None] = queue.Queue()
        self.places = threading.BoundedSemaphore(MOST_AT_ONCE)

    def scan(self, scanner: Scanner) -> None:
        """Answer jobs until None comes; the thread that runs this owns the scanner."""
        while job := self.jobs.get():
            batch = [job]
            while not self.jobs.empty() and (job := self.jobs.get()):
                batch.append(job)
            try:
                findings = scanner.scan_images([picture for picture, _ in batch])
            except Exception as error:  # the next batch may be fine
                findings = [Finding(None, error=Failure("internal", str(error)))] * len(batch)
            for (_, answer), finding in zip(batch, findings, strict=True):
                answer.set_result(finding)

    def handle_error(self, *about: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that hung up
            super().handle_error(*about)


class Handler(BaseHTTPRequestHandler):
    server: Service
    timeout = PATIENCE  # for a client that stops sending

    def do_GET(self) -> None:
        if self.path == "/health":
            self.send_json(HTTPStatus.OK, {"status": "ok"})
        else:
            self.refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path not in ("/scan", "/mask"):
            self.refuse(HTTPStatus.NOT_FOUND)
        elif not length.isdecimal():
            self.refuse(HTTPStatus.LENGTH_REQUIRED)
        elif len(length) > 9 or int(length) > MOST_BYTES:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif not self.server.places.acquire(timeout=PATIENCE):
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            try:
                self.answer(self.scanned(int(length)))
            except PictureError as error:
                self.refuse(HTTPStatus.UNPROCESSABLE_ENTITY, error.kind, str(error))
            finally:
                self.server.places.release()

    def scanned(self, length: int) -> Finding:
        data = self.rfile.read(length)
        if len(data) < length:
            raise PictureError("truncated", "the picture did not come whole")
        answer: Future[Finding] = Future()
        self.server.jobs.put((decode(data).picture, answer))
        return answer.result()

    def answer(self, finding: Finding) -> None:
        if finding.error or finding.mask is None:
            self.send_json(HTTPStatus.INTERNAL_SERVER_ERROR, finding.as_json())
        elif self.path == "/mask":
            self.send(HTTPStatus.OK, "image/png", cv2.imencode(".png", finding.mask)[1].tobytes())
        else:
            self.send_json(HTTPStatus.OK, finding.as_json())

    def refuse(self, status: HTTPStatus, kind: str = "request", message: str = "") -> None:
        self.send_json(status, {"error": {"type": kind, "message": message or status.phrase}})

    def send_json(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        self.send(status, "application/json", json.dumps(body).encode())

    def send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (8000)")
    parser.add_argument("--model", type=Path, help="another annotator than the one that ships")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Scanner(options.model) as scanner, Service(options.port) as service:
        threads = [
            threading.Thread(target=service.scan, args=[scanner]),
            threading.Thread(target=service.serve_forever),
        ]
        for thread in threads:
            thread.start()
        print(f"listening on http://127.0.0.1:{service.server_port}", flush=True)
        stop.wait()
        service.shutdown()
        service.server_close()  # waits for the answers, so that no job comes any more
        service.jobs.put(None)
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
