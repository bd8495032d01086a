"""Downloads in this process, from a hub that breaks off, lies, is busy or is away."""

import errno
import logging
import os
import random

import pytest

from edge_agent.errors import ModelError, ModelUnreachable
from edge_agent.models import download, hub
from edge_agent.models.catalogue import Entry, File, HubSource

MODEL, CONFIG = "weights/model.bin", "weights/config.json"
FILES = {MODEL: random.Random(4).randbytes(1 << 21), CONFIG: b"{}", "README.md": b"not wanted"}
SIZE = len(FILES[MODEL])
WEIGHTS = File("weights/*")


@pytest.fixture(autouse=True)
def _files(request) -> None:
    request.getfixturevalue("hub").files = dict(FILES)


def found(folder) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".verified.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_wanted_files_are_fetched_verified_and_kept(ours, tmp_path):
    entry, told = ours.entry(WEIGHTS), []
    total = SIZE + 2
    folder = download.ensure(entry, tmp_path, lambda done, of: told.append((done, of)))
    assert found(folder) == {name: FILES[name] for name in (MODEL, CONFIG)}
    assert told == sorted(told)
    assert told[-1] == (total, total)
    ours.paths.clear()
    assert download.is_present(entry, tmp_path)
    assert download.ensure(entry, tmp_path) == folder
    assert ours.paths == [], "what is here costs nothing"


def test_one_file_alone_is_what_the_engine_loads(ours, tmp_path):
    assert download.ensure(ours.entry(File(MODEL)), tmp_path).read_bytes() == FILES[MODEL]
    assert ours.asked == [(MODEL, 0)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [{}, {"reset": True}, {"no_length": True}])
def test_a_connection_that_breaks_anywhere_is_taken_up_again(ours, tmp_path, seed, kind):
    chance = random.Random(seed)
    for _ in range(4):
        ours.fail(after=chance.randrange(SIZE // 3), **kind)
    path = download.ensure(ours.entry(File(MODEL)), tmp_path)
    assert path.read_bytes() == FILES[MODEL]
    assert not ours.faults, "every cut happened"
    if not kind.get("reset"):  # A reset may overtake what was sent before it.
        assert ours.sent == SIZE, "not a byte came twice"


def test_a_hub_that_only_ever_hangs_up_is_given_up(ours, tmp_path):
    ours.fail(20, after=0)
    with pytest.raises(ModelUnreachable, match="what has come is kept"):
        download.ensure(ours.entry(File(MODEL)), tmp_path)
    assert len(ours.asked) == 6


def test_a_hub_that_falls_silent_is_asked_for_the_rest(ours, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_TIMEOUT_S", 0.2)
    ours.fail(after=SIZE // 2, hold=True)
    assert download.ensure(ours.entry(File(MODEL)), tmp_path).read_bytes() == FILES[MODEL]
    assert ours.asked == [(MODEL, 0), (MODEL, SIZE // 2)]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_waited_for_as_long_as_it_asks(ours, tmp_path, caplog, status):
    ours.busy = 1
    for failure in ({"headers": {"Retry-After": "1"}}, {}, {"status": None, "after": 1000}, {}):
        ours.fail(**{"status": status, **failure})
    with caplog.at_level(logging.WARNING):
        assert download.ensure(ours.entry(File(MODEL)), tmp_path).read_bytes() == FILES[MODEL]
    assert [line.rsplit("again in ")[1] for line in caplog.messages] == ["0 s", "1 s", "0 s", "0 s", "0 s"]
    assert ours.sent == SIZE


def test_a_hub_that_asks_for_an_hour_is_not_waited_for(ours, tmp_path):
    ours.fail(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(ModelUnreachable, match="cannot be fetched now: 429"):
        download.ensure(ours.entry(File(MODEL)), tmp_path)


def test_a_download_is_called_off_while_it_waits(ours, tmp_path):
    ours.fail(status=503, headers={"Retry-After": "100"})

    class Enough(Exception):
        pass

    def progress(_done: int, _total: int) -> None:
        if ours.asked:
            raise Enough

    with pytest.raises(Enough):
        download.ensure(ours.entry(File(MODEL)), tmp_path, progress)


def test_a_download_that_was_called_off_goes_on_where_it_stopped(ours, tmp_path):
    wanted = ours.entry(File(MODEL))

    class Enough(Exception):
        pass

    def progress(done: int, _total: int) -> None:
        if done > SIZE // 2:
            raise Enough

    with pytest.raises(Enough):
        download.ensure(wanted, tmp_path, progress)
    assert not download.is_present(wanted, tmp_path)
    told: list[int] = []
    path = download.ensure(wanted, tmp_path, lambda done, _: told.append(done))
    assert path.read_bytes() == FILES[MODEL]
    (_, first), (_, second) = ours.asked
    assert first == 0
    assert second > SIZE // 2
    assert min(each for each in told if each) > SIZE // 2, "progress counts what was there"


def test_a_hub_without_ranges_sends_everything_again(ours, tmp_path):
    ours.fail(after=SIZE // 2)
    ours.fail(no_ranges=True)
    assert download.ensure(ours.entry(File(MODEL)), tmp_path).read_bytes() == FILES[MODEL]
    assert ours.sent == SIZE // 2 + SIZE


def test_a_hub_that_tells_no_size_is_asked_for_everything_again(ours, tmp_path):
    ours.told = lambda sibling: {**sibling, "size": None}
    ours.fail(after=SIZE // 2)
    assert download.ensure(ours.entry(File(MODEL)), tmp_path).read_bytes() == FILES[MODEL]
    assert [start for _, start in ours.asked] == [0, 0]


def test_a_file_that_nothing_is_known_of_is_refused(ours, tmp_path):
    ours.told = lambda sibling: {"rfilename": sibling["rfilename"]}
    with pytest.raises(ModelError, match=rf"tells neither size nor checksum of {MODEL}"):
        download.ensure(ours.entry(WEIGHTS), tmp_path)
    known = [File(MODEL, size=SIZE), File(CONFIG, size=2)]
    assert set(found(download.ensure(ours.entry(*known), tmp_path))) == {MODEL, CONFIG}


@pytest.mark.parametrize(
    ("file", "sent", "problem"),
    [
        (File(MODEL), b"\0" * SIZE, f"{MODEL} is not the expected file"),
        (File(MODEL), FILES[MODEL][:-1], f"has {SIZE - 1} bytes instead of {SIZE}"),
        (File(MODEL), FILES[MODEL] + b"\0", f"bytes instead of {SIZE}"),
        (File(CONFIG), b"[]", f"{CONFIG} is not the expected file"),
        (File("README.md", sha256="0" * 64), FILES["README.md"], "README.md is not the expected file"),
        (File("README.md", size=3), FILES["README.md"], "README.md has 10 bytes instead of 3"),
    ],
)
def test_what_the_hub_sends_is_not_believed(ours, tmp_path, file, sent, problem):
    ours.sends[file.path] = sent
    entry = ours.entry(file)
    with pytest.raises(ModelError, match=problem):
        download.ensure(entry, tmp_path)
    assert not download._home(entry, tmp_path).exists()
    ours.sends.clear()
    if file in (File(MODEL), File(CONFIG)):
        assert download.ensure(entry, tmp_path).read_bytes() == FILES[file.path], "the next try does not meet it again"


@pytest.mark.parametrize("name", ["../../outside", "/outside"])
def test_no_file_is_put_outside_its_folder(ours, tmp_path, name):
    ours.told = lambda sibling: {**sibling, "rfilename": name}
    with pytest.raises(ModelError, match="offers a file outside its folder"):
        download.ensure(ours.entry(File("*")), tmp_path)
    assert ours.asked == []


def test_a_file_that_is_gone_from_the_hub_is_the_catalogues_matter(ours, tmp_path):
    with pytest.raises(ModelError, match=r"me/some has no \*\.gguf at 0123456789ab: correct the catalogue"):
        download.ensure(ours.entry(File("*.gguf")), tmp_path)


def test_an_unknown_revision_is_told_from_an_absent_hub(ours, tmp_path, monkeypatch):
    unknown = Entry("some", "x", "MIT", 1, "openvino", HubSource("me/some", "f" * 40, (File("*"),)))
    with pytest.raises(ModelError, match=r"me/some at f{12} cannot be had: 404.*correct repo and revision") as caught:
        download.ensure(unknown, tmp_path)
    assert caught.value.exit_code == 66
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        ModelUnreachable, match=r"me/some cannot be fetched now: .*HF_ENDPOINT, then try again"
    ) as caught:
        download.ensure(ours.entry(File("*")), tmp_path)
    assert caught.value.exit_code == 75


def test_a_model_larger_than_the_disk_is_refused_before_a_byte_is_fetched(ours, tmp_path):
    with pytest.raises(ModelError, match=r"needs 1000000\d\d\d MB free and has"):
        download.ensure(ours.entry(File(MODEL, size=10**15)), tmp_path)
    assert ours.asked == []


def test_a_disk_that_fills_up_is_named_and_not_the_network(ours, tmp_path):
    entry = ours.entry(File(MODEL))
    part = download._home(entry, tmp_path).parent / ".partial" / download._home(entry, tmp_path).name / "files"
    (part / "weights").mkdir(parents=True)
    (part / f"{MODEL}.part").symlink_to("/dev/full")
    with pytest.raises(ModelError, match=os.strerror(errno.ENOSPC)) as caught:
        download.ensure(entry, tmp_path)
    assert "network" not in str(caught.value)
    assert caught.value.exit_code == 66


def test_only_what_was_damaged_is_fetched_again(ours, tmp_path):
    entry = ours.entry(WEIGHTS)
    folder = download.ensure(entry, tmp_path)
    ours.asked.clear()
    (folder / CONFIG).write_bytes(b"[]")
    assert not download.is_present(entry, tmp_path)
    assert found(download.ensure(entry, tmp_path)) == {name: FILES[name] for name in (MODEL, CONFIG)}
    assert ours.asked == [(CONFIG, 0)]


def test_a_catalogue_that_asks_for_more_gets_that_alone(ours, tmp_path):
    download.ensure(ours.entry(File(MODEL)), tmp_path)
    ours.asked.clear()
    more = ours.entry(File(MODEL), File("README.md"))
    assert not download.is_present(more, tmp_path)
    assert set(found(download.ensure(more, tmp_path))) == {MODEL, "README.md"}
    assert ours.asked == [("README.md", 0)]
