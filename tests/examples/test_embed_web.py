"""The web service as a client meets it: answers, refusals, many at once, and an orderly end."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.conftest import grey_with_red_box

SCRIPT = Path(__file__).parents[2] / "examples" / "embed_web.py"


class Service:
    def __init__(self, model: Path) -> None:
        command = [sys.executable, str(SCRIPT), "--port", "0", "--model", str(model)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None and self.process.stderr is not None
        self.said: list[str] = []
        listening = re.match(r"listening on http://127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        assert listening, self.process.communicate()
        self.port = int(listening[1])
        self.log = threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()))
        self.log.start()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read()
        finally:
            connection.close()

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
        status, kind, data = self.ask("POST", path, body, **headers)
        assert kind == "application/json"
        return status, json.loads(data)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=30) == 0
        self.log.join(timeout=10)


@pytest.fixture
def service(red_model: Path) -> Iterator[Service]:
    service = Service(red_model)
    yield service
    service.process.kill()
    service.process.wait()
    service.log.join(timeout=10)


def encoded(height: int, width: int, box: tuple[int, int, int, int] = (0, 0, 0, 0), kind: str = ".png") -> bytes:
    return cv2.imencode(kind, grey_with_red_box(height, width, box))[1].tobytes()


def test_a_posted_picture_gets_its_finding(service: Service) -> None:
    status, finding = service.post("/scan", encoded(75, 101, (40, 30, 21, 17)))
    assert status == 200 and finding["verdict"] == "spliced" and finding["error"] is None
    assert (finding["width"], finding["height"]) == (101, 75)
    assert [region["bbox"] for region in finding["regions"]] == [[40, 30, 21, 17]]


def test_its_mask_comes_as_a_png_of_its_size(service: Service) -> None:
    status, kind, data = service.ask("POST", "/mask", encoded(75, 101, (40, 30, 21, 17)))
    assert (status, kind) == (200, "image/png")
    mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, grey_with_red_box(75, 101, (40, 30, 21, 17))[..., 2])


def test_health(service: Service) -> None:
    assert service.ask("GET", "/health")[0] == 200


def test_what_is_no_picture_is_refused_with_the_reason_and_the_next_one_is_answered(service: Service) -> None:
    jpeg = encoded(75, 101, kind=".jpg")
    bodies = {b"": "empty", b"hello": "not-a-picture", jpeg[: len(jpeg) // 2]: "truncated"}
    for body, kind in bodies.items():
        status, answer = service.post("/scan", body)
        assert (status, answer["error"]["type"]) == (422, kind) and answer["error"]["message"]
    assert service.post("/scan", jpeg)[0] == 200


def test_requests_that_make_no_sense_are_refused(service: Service) -> None:
    assert service.ask("GET", "/scan")[0] == 404
    assert service.post("/elsewhere", b"x")[0] == 404
    assert service.post("/scan", b"", **{"Content-Length": "-5"})[0] == 411
    assert service.post("/scan", b"", **{"Content-Length": "many"})[0] == 411
    for length in (str(51 << 20), "9" * 5000):  # it need not be sent to be refused
        assert service.post("/scan", b"", **{"Content-Length": length})[0] == 413
    service.stop()
    assert "Traceback" not in "".join(service.said)


def test_a_client_that_hangs_up_costs_the_others_nothing(service: Service) -> None:
    picture = encoded(75, 101)
    for sent in (picture[:50], picture):
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(b"POST /scan HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(picture) + sent)
    assert service.post("/scan", picture)[0] == 200
    service.stop()
    assert "Traceback" not in "".join(service.said)


def test_many_at_once_each_get_their_own_answer(service: Service) -> None:
    boxes = [(10 + 2 * index, 5 + index, 30 + index, 20) for index in range(24)]
    with ThreadPoolExecutor(12) as clients:
        answers = clients.map(lambda box: service.post("/scan", encoded(100, 200, box)), boxes)
        assert [finding["regions"][0]["bbox"] for _, finding in answers] == [list(box) for box in boxes]


def test_a_stop_lets_the_requests_in_hand_finish(service: Service) -> None:
    picture = encoded(3000, 4000, (100, 100, 2000, 2000), ".jpg")
    with ThreadPoolExecutor(4) as clients:
        answers = [clients.submit(service.post, "/scan", picture) for _ in range(4)]
        time.sleep(0.3)  # they are being answered now
        service.stop()
        assert [answer.result()[0] for answer in answers] == [200] * 4
    with pytest.raises(ConnectionRefusedError):
        service.ask("GET", "/health")
