"""What the Python API promises to a program that embeds it, beyond what its findings say (test_scanner.py)."""

import gc
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mag_rt
from mag_rt import BundleError, MagrtError, Scanner, SourceError, pictures
from tests.conftest import grey_with_red_box, save

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch", "mag_train", "onnx", "onnxruntime", "openvino", "PIL", "rich", "typer", "click", "pycuda", "tensorrt",
    "tensorrt_rtx", "jinja2", "jsonschema",
)  # fmt: skip


@pytest.fixture
def scanner(red_model: Path) -> Iterator[Scanner]:
    with Scanner(red_model) as scanner:
        yield scanner


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    for index in range(60):
        save(tmp_path / "inbox" / f"{index:02d}.png", grey_with_red_box(40, 40))
    return tmp_path / "inbox"


def python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def readme_snippet() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(r"## Embed\n\n```python\n(.*?)```", text, re.DOTALL)[1]  # type: ignore[index]


def test_importing_mag_rt_brings_numpy_and_opencv_and_nothing_else_that_is_heavy() -> None:
    code = f"import sys, mag_rt; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code).strip() == "[]"


def test_the_example_of_the_readme_runs(red_model: Path, inbox: Path) -> None:
    (inbox / "07.png").write_bytes(b"no picture")
    prelude = "import numpy\nbgr_array = numpy.zeros((40, 50, 3), numpy.uint8)\narrays = [bgr_array] * 2\n"
    code = readme_snippet().replace("Scanner()", f"Scanner({str(red_model)!r})").replace('"inbox/"', repr(str(inbox)))
    lines = python(prelude + code + "\nassert len(findings) == 2").splitlines()
    assert len(lines) == 60
    assert "the file is no picture of a kind that can be decoded" in lines[7] and "authentic" in lines[8]


def test_a_program_that_uses_everything_passes_mypy_strict(tmp_path: Path) -> None:
    """So do the examples. An ignore that is not needed is an error, so what must not be done is held to be refused."""
    prelude = "import numpy\nbgr_array = numpy.zeros((40, 50, 3), numpy.uint8)\narrays = [bgr_array] * 2\n"
    everything = ", ".join(mag_rt.__all__)
    errors = ", ".join(name for name in mag_rt.__all__ if name.endswith("Error"))
    uses = f"""
from pathlib import Path
from mag_rt import {everything}
every_error: list[type[MagrtError]] = [{errors}]
"""
    uses += """
def worst(regions: list[Region]) -> tuple[int, int, int, int] | None:
    return max(regions, key=lambda region: region.score).bbox if regions else None

def kept(finding: Finding) -> float:
    failure: Failure | None = finding.error
    names: list[str] = [seen.name for seen in finding.objects]
    finding.score + 1  # type: ignore[operator]
    finding.score = 0.0  # type: ignore[misc]
    finding.sorce  # type: ignore[attr-defined]
    return finding.score or 0.0

try:
    with Scanner(Path("bundle"), max_side=512, tiles=True, backend="onnxruntime", precision="float32") as other:
        scores: list[float] = [kept(finding) for finding in other.scan(["inbox", Path("portrait.jpg")])]
        other.scan_image("photo.jpg")  # type: ignore[arg-type]
    Scanner(max_size=512)  # type: ignore[call-arg]
except (BundleError, SourceError) as error:
    base: MagrtError = error
except PictureError as error:
    kind: str = error.kind
seen: SeenObject = SeenObject("dog", 0.5)
"""
    (tmp_path / "program.py").write_text(prelude + readme_snippet() + uses)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary"]
    command += ["--cache-dir", str(ROOT / ".mypy_cache" / "api"), "--disable-error-code=unreachable"]
    programs = [tmp_path / "program.py", *sorted((ROOT / "examples").glob("embed_*.py"))]
    done = subprocess.run([*command, *map(str, programs)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_public_is_there_and_documented() -> None:
    for name in mag_rt.__all__:
        assert getattr(mag_rt, name).__doc__, name


@pytest.mark.parametrize("name", ["BackendError", "Sampling"])
def test_what_a_scanner_takes_and_raises_can_be_imported(name: str) -> None:
    assert name in mag_rt.__all__ and hasattr(mag_rt, name)


def test_errors_are_exact_and_a_line_each(red_model: Path, tmp_path: Path) -> None:
    from mag_rt.errors import BackendError

    (tmp_path / "empty").mkdir()
    cases: list[tuple[type[MagrtError], str, Callable[[], Any]]] = [
        (BundleError, "incomplete: bundle.json is missing", lambda: Scanner(tmp_path / "empty")),
        (BundleError, "no such bundle", lambda: Scanner(tmp_path / "nowhere")),
        (BundleError, "no int8 network", lambda: Scanner(red_model, backend="onnxruntime", precision="int8")),
        (BackendError, "no backend abacus", lambda: Scanner(red_model, backend="abacus")),
        (BackendError, "no precision int4", lambda: Scanner(red_model, precision="int4")),
        (SourceError, "no such file or folder", lambda: Scanner(red_model).scan([tmp_path / "nowhere"])),
        (SourceError, "nothing to scan", lambda: Scanner(red_model).scan([tmp_path / "empty"])),
        (SourceError, "matches nothing", lambda: Scanner(red_model).scan([f"{tmp_path}/*.tga"])),
    ]
    for kind, says, act in cases:
        with pytest.raises(kind, match=re.escape(says)) as caught:
            act()
        assert type(caught.value) is kind and isinstance(caught.value, MagrtError)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="max_side must be positive, not 0"):
        Scanner(red_model, max_side=0)
    with pytest.raises(ValueError, match=r"threshold must be between 0 and 1, not 1\.5"):
        Scanner(red_model, threshold=1.5)


def test_a_source_that_does_not_exist_is_said_when_scan_is_called_and_not_later(scanner: Scanner) -> None:
    with pytest.raises(SourceError):
        scanner.scan(["nowhere.jpg"])  # nothing was asked of the generator yet


def test_closing_twice_is_fine(red_model: Path) -> None:
    with Scanner(red_model) as scanner:
        scanner.scan_image(grey_with_red_box(40, 40))
        scanner.close()
    scanner.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda scanner, inbox: scanner.scan_image(grey_with_red_box(40, 40)),
        lambda scanner, inbox: scanner.scan_images([grey_with_red_box(40, 40)]),
        lambda scanner, inbox: list(scanner.scan([inbox])),
    ],
    ids=["scan_image", "scan_images", "scan"],
)
def test_a_scanner_that_was_closed_says_so(use, red_model: Path, inbox: Path) -> None:
    scanner = Scanner(red_model)
    scanner.close()
    with pytest.raises(MagrtError, match="the scanner is closed"):
        use(scanner, inbox)


@pytest.mark.parametrize("isolate", [False, True])
def test_a_scanner_that_is_closed_in_the_middle_of_a_scan_says_so(isolate: bool, red_model: Path, inbox: Path) -> None:
    before = set(threading.enumerate())
    for taken in (0, 1, 5):
        with Scanner(red_model, isolate=isolate, backend="onnxruntime") as scanner:
            findings = scanner.scan([inbox])
            for _ in range(taken):
                assert next(findings).error is None
        with pytest.raises(MagrtError, match="the scanner is closed"):
            next(findings)
        assert set(threading.enumerate()) == before


def through_close(findings: Any) -> None:
    findings.close()


def through_an_error(findings: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        for _ in findings:
            raise ZeroDivisionError
    findings.close()


def through_letting_go(findings: Any) -> None:
    del findings
    gc.collect()


def threads_now(scanner: Scanner) -> set[threading.Thread]:
    scanner.scan_image(grey_with_red_box(40, 40))  # what the backend's library starts, it keeps
    gc.collect()  # what other tests left is not counted in
    return set(threading.enumerate())


@pytest.mark.parametrize("leave", [through_close, through_an_error, through_letting_go])
def test_a_scan_that_is_abandoned_leaves_no_thread_behind(leave, scanner: Scanner, inbox: Path) -> None:
    before = threads_now(scanner)
    findings = [scanner.scan([inbox])]
    next(findings[0])
    assert set(threading.enumerate()) > before
    leave(findings.pop())
    assert set(threading.enumerate()) == before
    assert len(list(scanner.scan([inbox]))) == 60  # and the scanner is as good as new


def test_a_scan_that_fails_leaves_no_thread_behind_though_its_error_is_kept(
    scanner: Scanner, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threads_now(scanner)

    def fail(*arguments: Any) -> Any:
        raise MagrtError("the GPU is gone")

    monkeypatch.setattr(type(scanner.reader), "__call__", fail)
    with pytest.raises(MagrtError, match="the GPU is gone") as kept:
        list(scanner.scan([inbox]))
    left = set(threading.enumerate()) - before
    assert kept.value and not left


def test_a_slow_consumer_has_few_pictures_decoded_ahead(scanner: Scanner, inbox: Path) -> None:
    findings = scanner.scan([inbox])
    next(findings)
    time.sleep(1)
    for path in inbox.iterdir():
        path.unlink()
    ahead = sum(finding.error is None for finding in findings)
    assert 1 <= ahead <= 4 * scanner.reader.threads * scanner.reader.batch


def test_a_reader_of_batches_has_its_pictures_decoded_side_by_side(
    scanner: Scanner, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose thread there is one of, as on a GPU: it would wait for one core to decode for it."""
    monkeypatch.setattr(scanner.reader, "threads", 1)
    monkeypatch.setattr(scanner.reader, "batch", 4, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    meeting = threading.Barrier(3, timeout=20)

    def met(data: bytes, enough: int | None = None) -> pictures.Decoded:
        meeting.wait()
        return pictures.decode(data, enough)

    monkeypatch.setattr("mag_rt.scanner.decode", met)
    assert [finding.error for finding in scanner.scan([inbox])] == 60 * [None]


def test_memory_does_not_grow_with_the_number_of_pictures(red_model: Path, tmp_path: Path) -> None:
    picture = save(tmp_path / "in" / "000.png", grey_with_red_box(1000, 1000))
    for index in range(1, 160):
        (tmp_path / "in" / f"{index:03d}.png").hardlink_to(picture)
    code = """
import resource, sys
from mag_rt import Scanner
with Scanner(sys.argv[1]) as scanner:
    for number, finding in enumerate(scanner.scan([sys.argv[2]]), 1):
        if number in (40, 160):
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    early, late = map(int, python(code, red_model, tmp_path / "in").split())
    assert late - early < 24_000, "KiB; a picture and its mask are 3,900"


def test_a_scanner_may_go_from_thread_to_thread_and_others_beside_it(red_model: Path) -> None:
    picture = grey_with_red_box(60, 80, (10, 20, 30, 30))
    with Scanner(red_model) as first, Scanner(red_model, max_side=40) as second:
        expected = [first.scan_image(picture), second.scan_image(picture)]
        found: dict[int, list[Any]] = {}

        def work(number: int, scanner: Scanner) -> None:
            found[number] = [scanner.scan_image(picture) for _ in range(20)]

        threads = [threading.Thread(target=work, args=each) for each in enumerate((first, second))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, finding in enumerate(expected):
        assert found[number] == [finding] * 20
        assert all(np.array_equal(each.mask, finding.mask) for each in found[number])


def test_no_pictures_no_findings(scanner: Scanner) -> None:
    assert scanner.scan_images([]) == []
