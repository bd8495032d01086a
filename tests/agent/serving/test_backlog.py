"""The backlog: bounded, fair, by priority."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent.serving.backlog import Backlog, Priority, Ticket
from edge_agent.wire import WireError

CLIENTS = st.sampled_from("abc")
PRIORITIES = st.sampled_from(Priority)
SIZE, SHARE = 6, 3


def ticket(client: str, rid: str, priority: Priority = Priority.NORMAL, deadline: float = math.inf) -> Ticket[str]:
    return Ticket((client, rid), rid, priority, arrived=0.0, deadline=deadline)


def backlog(*tickets: Ticket[str], size: int = 10, share: int = 10) -> Backlog[str]:
    made: Backlog[str] = Backlog(size, share)
    for each in tickets:
        made.offer(each, retry_after_s=1.0)
    return made


def taken(lot: Backlog[str]) -> list[str]:
    return [each.job for each in iter(lot.take, None)]


def test_clients_of_one_priority_take_turns():
    assert taken(backlog(*(ticket(name[0], name) for name in ("a1", "a2", "a3", "b1", "b2", "c1")))) == [
        *("a1", "b1", "c1"),
        *("a2", "b2"),
        "a3",
    ]


def test_who_was_served_last_goes_to_the_end_of_its_lane():
    lot = backlog(ticket("a", "a1"), ticket("b", "b1"))
    assert lot.take().job == "a1"
    lot.offer(ticket("a", "a2"), 1.0)
    lot.offer(ticket("c", "c1"), 1.0)
    assert taken(lot) == ["b1", "a2", "c1"]


def test_a_higher_priority_goes_first():
    rest = ("prepare", Priority.PREPARE), ("batch", Priority.BATCH), ("normal", Priority.NORMAL)
    lot = backlog(*(ticket("a", rid, priority) for rid, priority in (*rest, ("voice", Priority.VOICE))))
    assert lot.best() is Priority.VOICE
    assert taken(lot) == ["voice", "normal", "batch", "prepare"]
    assert lot.best() is None


def test_a_full_backlog_says_busy_and_when_to_come_again():
    with pytest.raises(WireError) as refused:
        backlog(ticket("a", "1"), ticket("b", "2"), ticket("c", "3"), size=2)
    assert (refused.value.code.name, refused.value.retry_after_s) == ("busy", 1.0)


def test_a_client_with_its_share_waiting_is_rate_limited_and_others_are_not():
    lot = backlog(ticket("a", "1"), share=1)
    with pytest.raises(WireError) as refused:
        lot.offer(ticket("a", "2"), retry_after_s=7.0)
    assert (refused.value.code.name, refused.value.retry_after_s) == ("rate_limited", 7.0)
    lot.offer(ticket("b", "2"), retry_after_s=1.0)


def test_an_id_waits_once():
    with pytest.raises(WireError, match="id_conflict"):
        backlog(ticket("a", "1"), ticket("a", "1"))


def test_what_is_put_back_needs_no_room_and_goes_first_of_its_priority():
    lot = backlog(ticket("a", "1"), ticket("b", "2"), size=2, share=1)
    first = lot.take()
    lot.offer(ticket("c", "3"), 1.0)
    lot.put_back(first)
    assert (len(lot), lot.room, taken(lot)) == (3, 0, ["1", "2", "3"])


def test_expired_tickets_leave_and_the_rest_keeps_its_order():
    lot = backlog(ticket("a", "1", deadline=5.0), ticket("b", "2", deadline=9.0), ticket("c", "3", deadline=5.0))
    assert lot.next_deadline() == 5.0
    assert [each.job for each in lot.expire(now=5.0)] == ["1", "3"]
    assert (lot.expire(now=5.0), lot.next_deadline(), taken(lot)) == ([], 9.0, ["2"])
    assert lot.next_deadline() is None


class Waiting(RuleBasedStateMachine):
    """Any sequence of operations, against a plain list of what should be waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.lot: Backlog[str] = Backlog(SIZE, SHARE)
        self.here: dict[tuple[str, str], Ticket[str]] = {}
        self.out: list[Ticket[str]] = []
        self.count = 0

    def share(self, client: str) -> int:
        return sum(key[0] == client for key in self.here)

    @rule(client=CLIENTS, priority=PRIORITIES, deadline=st.integers(1, 20))
    def offer(self, client: str, priority: Priority, deadline: int) -> None:
        self.count += 1
        new = ticket(client, str(self.count), priority, deadline)
        expected = "busy" if len(self.here) >= SIZE else "rate_limited" if self.share(client) >= SHARE else None
        if expected:
            with pytest.raises(WireError, match=expected):
                self.lot.offer(new, 1.0)
        else:
            self.lot.offer(new, 1.0)
            self.here[new.key] = new

    @rule()
    def take(self) -> None:
        best = min((each.priority for each in self.here.values()), default=None)
        got = self.lot.take()
        assert (got and got.priority) == best
        if got:
            self.out.append(self.here.pop(got.key))

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        back = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.lot.put_back(back)
        self.here[back.key] = back
        first = next(each for each, _ in self.lot.positions() if each.priority is back.priority)
        assert first is back

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.here)))
        assert self.lot.remove(key) is self.here.pop(key)
        assert self.lot.remove(key) is None

    @rule(now=st.integers(0, 20))
    def expire(self, now: int) -> None:
        late = {each.key for each in self.lot.expire(now)}
        assert late == {key for key, each in self.here.items() if each.deadline <= now}
        for key in late:
            del self.here[key]

    @invariant()
    def counts_agree(self) -> None:
        assert {each.key for each in self.lot} == set(self.here)
        assert len(self.lot) == len(self.here)
        assert self.lot.room == max(0, SIZE - len(self.here))
        assert self.lot.next_deadline() == min((each.deadline for each in self.here.values()), default=None)

    @invariant()
    def positions_are_the_order_of_take(self) -> None:
        told = [each for each, _ in self.lot.positions()]
        assert [count for _, count in self.lot.positions()] == list(range(len(self.here)))
        assert all(self.lot.ahead_of(each.key) == count for count, each in enumerate(told))
        twin: Backlog[str] = Backlog(SIZE, SHARE)
        for priority, lane in self.lot._lanes.items():
            for client, tickets in lane.items():
                twin._lanes[priority][client] = tickets.copy()
        twin._tickets, twin._shares = dict(self.lot._tickets), dict(self.lot._shares)
        assert list(iter(twin.take, None)) == told


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)
