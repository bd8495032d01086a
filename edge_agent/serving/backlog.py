"""The waiting turns: bounded, fair, by priority. A pure object: nothing here knows a clock, a task or an engine."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from edge_agent.wire import WireError

Key = tuple[str, str]
"""(client, rid): the identity of a request."""
T = TypeVar("T")


class Priority(IntEnum):
    """Lower goes first. `PREPARE` yields to everything, even when it runs already."""

    VOICE = 0
    NORMAL = 1
    BATCH = 2
    PREPARE = 3


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """A place in the backlog. Times are seconds of whatever clock the caller uses, the same for `now`."""

    key: Key
    job: T
    priority: Priority
    arrived: float
    deadline: float
    attempts: int = 0
    position: int = field(default=0, compare=False)
    """Where it stood when its client was last told."""

    @property
    def client(self) -> str:
        return self.key[0]


class Backlog(Generic[T]):
    """Priorities first; within one, round-robin over clients; within one client, first come first served."""

    def __init__(self, size: int, per_client: int) -> None:
        self.size = size
        self.per_client = per_client
        self._lanes: dict[Priority, OrderedDict[str, deque[Ticket[T]]]] = {each: OrderedDict() for each in Priority}
        self._tickets: dict[Key, Ticket[T]] = {}
        self._shares: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket[T]]:
        return iter(tuple(self._tickets.values()))

    @property
    def room(self) -> int:
        return max(0, self.size - len(self))

    def offer(self, ticket: Ticket[T], retry_after_s: float) -> None:
        """Admit a ticket, or raise `busy` (the backlog is full) or `rate_limited` (its client's share is)."""
        if ticket.key in self._tickets:
            raise WireError("id_conflict", "this id is waiting already")
        if not self.room:
            raise WireError("busy", f"{len(self)} requests are waiting", retry_after_s=retry_after_s)
        if self._shares.get(ticket.client, 0) >= self.per_client:
            message = f"{self.per_client} requests of {ticket.client} are waiting"
            raise WireError("rate_limited", message, retry_after_s=retry_after_s)
        self._insert(ticket)

    def put_back(self, ticket: Ticket[T]) -> None:
        """Return a ticket that ran in vain, first of its client. Admitted once, it needs no room again."""
        self._insert(ticket, first=True)

    def take(self) -> Ticket[T] | None:
        """Remove and return the next ticket to run."""
        for lane in self._lanes.values():
            if lane:
                client, tickets = next(iter(lane.items()))
                ticket = tickets[0]
                lane.move_to_end(client)
                self._forget(ticket)
                return ticket
        return None

    def remove(self, key: Key) -> Ticket[T] | None:
        """Take a ticket out of turn, if it is here."""
        if ticket := self._tickets.get(key):
            self._forget(ticket)
        return ticket

    def expire(self, now: float) -> list[Ticket[T]]:
        """Remove and return every ticket whose deadline is past."""
        late = [ticket for ticket in self._tickets.values() if ticket.deadline <= now]
        for ticket in late:
            self._forget(ticket)
        return late

    def next_deadline(self) -> float | None:
        return min((ticket.deadline for ticket in self._tickets.values()), default=None)

    def best(self) -> Priority | None:
        """The priority of the ticket that `take` would return."""
        return next((priority for priority, lane in self._lanes.items() if lane), None)

    def positions(self) -> Iterator[tuple[Ticket[T], int]]:
        """Every ticket in the order of `take`, with the number of those before it."""
        count = 0
        for lane in self._lanes.values():
            for turn in range(max(map(len, lane.values()), default=0)):
                for tickets in lane.values():
                    if turn < len(tickets):
                        yield tickets[turn], count
                        count += 1

    def ahead_of(self, key: Key) -> int:
        """How many tickets go before this one."""
        return next((count for ticket, count in self.positions() if ticket.key == key), 0)

    def _insert(self, ticket: Ticket[T], *, first: bool = False) -> None:
        self._tickets[ticket.key] = ticket
        self._shares[ticket.client] = self._shares.get(ticket.client, 0) + 1
        lane = self._lanes[ticket.priority]
        tickets = lane.setdefault(ticket.client, deque())
        if first:
            tickets.appendleft(ticket)
            lane.move_to_end(ticket.client, last=False)
        else:
            tickets.append(ticket)

    def _forget(self, ticket: Ticket[T]) -> None:
        del self._tickets[ticket.key]
        lane = self._lanes[ticket.priority]
        lane[ticket.client].remove(ticket)
        if not lane[ticket.client]:
            del lane[ticket.client]
        self._shares[ticket.client] -= 1
        if not self._shares[ticket.client]:
            del self._shares[ticket.client]
