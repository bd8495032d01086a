"""Whose work holds an event loop: every callback is timed, and within it every function of the component.

The interpreter itself tells when a function of the component, or one of Home Assistant's that it waits for, is entered
and left (`sys.monitoring`), so nothing is sampled: a callback's time is divided among the innermost of those functions.
What they call besides counts as theirs. Time is what the loop's thread worked, for a callback beside what the clock
showed: when other threads and processes have the processor, that is not the component's doing.
"""

import asyncio
import gc
import sys
import threading
import time
from bisect import insort
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any, Final

OURS: Final = "/custom_components/edge_agent/"
THEIRS: Final = {
    "/components/conversation/chat_log.py": (
        "ChatLog.async_provide_llm_data",
        "ChatLog.async_add_delta_content_stream",
    ),
    "/components/mqtt/client.py": ("async_publish",),
    "/helpers/llm.py": ("async_get_api",),
    "/helpers/template/__init__.py": ("Template.async_render_to_info",),
}
"""Home Assistant's functions that the component waits for; their time is not the component's own."""
KEPT: Final = 10

_EVENTS = sys.monitoring.events
_TOOL: Final = sys.monitoring.PROFILER_ID
_ENTERED: Final = (_EVENTS.PY_START, _EVENTS.PY_RESUME, _EVENTS.PY_THROW)
_LEFT: Final = (_EVENTS.PY_RETURN, _EVENTS.PY_YIELD, _EVENTS.PY_UNWIND)
_CANNOT_DISABLE: Final = (_EVENTS.PY_THROW, _EVENTS.PY_UNWIND)


class Stopwatch:
    """Between `start` and `stop` it times the loop it was started in."""

    def __init__(self) -> None:
        self._run = asyncio.Handle._run  # noqa: SLF001 - there is no other place that every callback passes
        self._names: dict[int, tuple[CodeType, str]] = {}
        self._reset()

    def _reset(self) -> None:
        self._thread = 0
        self._stack: list[str] = []
        self._spent: dict[str, float] = {}
        self._mark = 0.0
        self._collecting = 0.0
        self._callbacks = 0
        self._longest: dict[str, list[dict[str, Any]]] = {"all": [], "own": [], "clock": []}
        self._calls: defaultdict[str, int] = defaultdict(int)
        self._total: defaultdict[str, float] = defaultdict(float)

    def start(self) -> None:
        """Begin, or begin anew: the first time the interpreter also learns what nobody has to know of."""
        running = self._thread
        self._reset()
        self._thread = threading.get_ident()
        if running:
            return
        monitoring = sys.monitoring
        monitoring.use_tool_id(_TOOL, "watch")
        for events, answer in ((_ENTERED, self._enter), (_LEFT, self._leave)):
            for event in events:
                monitoring.register_callback(_TOOL, event, _answering(answer, may_disable=event not in _CANNOT_DISABLE))
        monitoring.set_events(_TOOL, sum((*_ENTERED, *_LEFT)))
        gc.callbacks.append(self._collected)
        stopwatch, run = self, self._run

        def timed(handle: asyncio.Handle) -> None:
            stopwatch._time(lambda: run(handle))

        asyncio.Handle._run = timed  # noqa: SLF001

    def stop(self) -> dict[str, Any]:
        """End, and return the callbacks in which the component had a part and that were longest; in milliseconds.

        `own` is the component's work, `all` everybody's in that callback, and `clock` what the clock showed.
        """
        asyncio.Handle._run = self._run  # noqa: SLF001
        gc.callbacks.remove(self._collected)
        sys.monitoring.set_events(_TOOL, 0)
        sys.monitoring.free_tool_id(_TOOL)
        self._thread = 0
        functions = {name: [self._calls[name], _ms(spent)] for name, spent in self._total.items()}
        return {"callbacks": self._callbacks, "longest": self._longest, "functions": functions}

    def _time(self, run: Callable[[], None]) -> None:
        self._stack.clear()
        self._spent = {}
        self._collecting = 0.0
        began, worked = time.perf_counter(), time.thread_time()
        run()
        worked, took = time.thread_time() - worked, time.perf_counter() - began
        if not any(_is_ours(name) for name in self._spent):
            return
        self._callbacks += 1
        for name, spent in self._spent.items():
            self._total[name] += spent
        own = sum(spent for name, spent in self._spent.items() if _is_ours(name))
        parts = {name: _ms(spent) for name, spent in sorted(self._spent.items(), key=lambda item: -item[1])[:6]}
        times = {"all": worked, "own": own, "clock": took, "gc": self._collecting}
        seen = {**{name: _ms(spent) for name, spent in times.items()}, "parts": parts}
        for order, longest in self._longest.items():
            insort(longest, seen, key=lambda each: -each[order])
            del longest[KEPT:]

    def _enter(self, code: CodeType) -> bool:
        """Note that a function was entered; False if nobody has to know of this one."""
        name = self._name(code)
        if not name:
            return False
        if threading.get_ident() == self._thread:
            self._charge()
            self._stack.append(name)
            self._spent.setdefault(name, 0.0)
            self._calls[name] += 1
        return True

    def _leave(self, code: CodeType) -> bool:
        name = self._name(code)
        if not name:
            return False
        if threading.get_ident() == self._thread and name in self._stack:
            self._charge()
            while self._stack.pop() != name:
                pass
        return True

    def _charge(self) -> None:
        """The work since the last step goes to the innermost function."""
        now = time.thread_time()
        if self._stack:
            self._spent[self._stack[-1]] += now - self._mark
        self._mark = now

    def _name(self, code: CodeType) -> str:
        known = self._names.get(id(code))
        if known is None:
            known = self._names[id(code)] = code, _named(code)  # Kept alive: its id is no one else's then.
        return known[1]

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        if threading.get_ident() == self._thread:
            now = time.thread_time()
            self._collecting += now if phase == "stop" else -now


def _answering(note: Callable[[CodeType], bool], *, may_disable: bool) -> Callable[..., Any]:
    """Make a note a callback of the interpreter's, which need not tell again of what nobody has to know."""

    def answer(code: CodeType, *_: object) -> Any:
        return sys.monitoring.DISABLE if not note(code) and may_disable else None

    return answer


def _named(code: CodeType) -> str:
    """`module.function` of what is watched, else nothing; Home Assistant's are marked."""
    if OURS in code.co_filename:
        return f"{Path(code.co_filename).stem}.{code.co_qualname}"
    for file, functions in THEIRS.items():
        if code.co_qualname in functions and code.co_filename.endswith(f"homeassistant{file}"):
            return f"(Home Assistant) {code.co_qualname}"
    return ""


def _is_ours(name: str) -> bool:
    return not name.startswith("(")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
