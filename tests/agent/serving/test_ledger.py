"""The ledger: what makes a request idempotent and an answer resumable."""

import pytest

from edge_agent.serving.ledger import TOMBSTONE_S, Ledger, Standing

KEY = ("anna", "r1")


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(entries_per_client=3, bytes_per_client=100, clients=2)


def finish(ledger: Ledger, client: str, rid: str, final: bytes = b"final") -> None:
    ledger.open((client, rid), b"print")
    ledger.settle((client, rid), 0, final)


def test_a_request_is_new_then_running_then_finished(ledger):
    assert ledger.standing(KEY, b"print", 0.0) is Standing.NEW
    ledger.open(KEY, b"print")
    assert ledger.standing(KEY, b"print", 0.0) is Standing.RUNNING
    ledger.settle(KEY, 4, b"final")
    assert ledger.standing(KEY, b"print", 0.0) is Standing.FINISHED


@pytest.mark.parametrize("finished", [False, True])
def test_another_payload_under_the_same_id_is_a_conflict(ledger, finished):
    ledger.open(KEY, b"print")
    if finished:
        ledger.settle(KEY, 0, b"final")
    assert ledger.standing(KEY, b"other", 0.0) is Standing.CONFLICT


def test_the_same_id_of_another_client_is_another_request(ledger):
    ledger.open(KEY, b"print")
    assert ledger.standing(("ben", "r1"), b"print", 0.0) is Standing.NEW


def test_what_is_forgotten_may_come_again(ledger):
    ledger.open(KEY, b"print")
    ledger.forget(KEY)
    ledger.forget(KEY)
    assert ledger.standing(KEY, b"print", 0.0) is Standing.NEW


@pytest.mark.parametrize(("spared", "standing"), [(False, Standing.CANCELLED), (True, Standing.SPARED)])
def test_a_cancel_before_its_request_is_remembered_for_a_minute(ledger, spared, standing):
    ledger.entomb(KEY, 0.0, spared=spared)
    for _ in range(2):  # A duplicate of the request finds it too.
        assert ledger.standing(KEY, b"print", TOMBSTONE_S - 0.1) is standing
    assert ledger.standing(KEY, b"print", TOMBSTONE_S) is Standing.NEW


def test_a_running_answer_is_resumed_from_what_was_seen(ledger):
    entry = ledger.open(KEY, b"print")
    for seq, payload in enumerate((b"accepted", b"one", b"two")):
        ledger.record(KEY, seq, payload, status=seq == 0)
    assert entry.since(-1) == [b"accepted", b"one", b"two"]
    assert entry.since(1) == [b"two"]
    assert entry.status == (0, b"accepted")


def test_when_nothing_is_missing_the_latest_message_is_a_sign_of_life(ledger):
    entry = ledger.open(KEY, b"print")
    assert entry.since(-1) == []
    ledger.record(KEY, 0, b"accepted", status=True)
    assert entry.since(0) == entry.since(99) == [b"accepted"]


def test_a_finished_answer_is_resumed_by_its_final_alone(ledger):
    entry = ledger.open(KEY, b"print")
    ledger.record(KEY, 0, b"one")
    ledger.settle(KEY, 1, b"final")
    assert entry.since(-1) == entry.since(0) == entry.since(1) == [b"final"]


def test_a_long_running_answer_keeps_its_newest_messages(ledger):
    entry = ledger.open(KEY, b"print")
    for seq in range(20):
        ledger.record(KEY, seq, b"x" * 30)
    assert [seq for seq, _ in entry.messages] == [17, 18, 19]
    ledger.record(KEY, 20, b"x" * 1000)
    assert [seq for seq, _ in entry.messages] == [20]


def test_a_client_keeps_so_many_finals_the_oldest_go_first(ledger):
    for number in range(5):
        finish(ledger, "anna", f"r{number}")
    assert [ledger.find(("anna", f"r{number}")) is not None for number in range(5)] == [False] * 2 + [True] * 3


def test_a_client_keeps_so_many_bytes_but_always_its_newest_final(ledger):
    finish(ledger, "anna", "r0", b"x" * 60)
    finish(ledger, "anna", "r1", b"x" * 60)
    assert ledger.find(("anna", "r0")) is None
    finish(ledger, "anna", "r2", b"x" * 1000)
    assert (ledger.find(("anna", "r1")), ledger.find(("anna", "r2")) is not None) == (None, True)


def test_running_requests_are_never_dropped(ledger):
    for number in range(9):
        ledger.open(("anna", f"r{number}"), b"print")
    for client in ("ben", "cleo", "dora"):
        finish(ledger, client, "r")
    assert all(ledger.find(("anna", f"r{number}")) for number in range(9))


def test_one_client_never_evicts_the_answers_of_another(ledger):
    finish(ledger, "ben", "r0")
    for number in range(50):
        finish(ledger, "anna", f"r{number}", b"x" * 90)
    assert ledger.find(("ben", "r0"))


def test_of_too_many_clients_the_idlest_is_forgotten(ledger):
    finish(ledger, "anna", "r0")
    finish(ledger, "ben", "r0")
    finish(ledger, "anna", "r1")
    finish(ledger, "cleo", "r0")
    assert [ledger.find((client, "r0")) is not None for client in ("anna", "ben", "cleo")] == [True, False, True]


def test_tombstones_are_bounded(ledger):
    for number in range(5000):
        ledger.entomb(("anna", str(number)), 0.0, spared=False)
    assert ledger.standing(("anna", str(4999 - 128)), b"", 1.0) is Standing.NEW
    assert ledger.standing(("anna", "4999"), b"", 1.0) is Standing.CANCELLED
    for client in ("ben", "cleo"):
        ledger.entomb((client, "r"), 0.0, spared=False)
    assert list(ledger._tombstones) == ["ben", "cleo"]


def test_one_client_never_evicts_the_cancels_of_another(ledger):
    ledger.entomb(KEY, 0.0, spared=False)
    for number in range(5000):
        ledger.entomb(("ben", str(number)), 0.0, spared=False)
    assert ledger.standing(KEY, b"", 1.0) is Standing.CANCELLED
