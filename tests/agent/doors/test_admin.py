"""Orders of an operator: for this boot only, each with its answer."""

import json
import logging

import pytest

from edge_agent.doors.mqtt.admin import Operations, perform
from edge_agent.wire import ADMIN_OPS, WireError


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def give(done):
    operations = Operations(
        reload=lambda: done.append("reload"),
        drain=lambda: done.append("drain"),
        shutdown=lambda: done.append("shutdown"),
        config=lambda: {"node": "kitchen"},
    )

    def order(op: object, boot: str = "b1", **values) -> dict:
        return perform(json.dumps({"op": op, "boot": boot, **values}).encode(), "b1", operations)

    return order


@pytest.mark.parametrize("op", ["reload", "drain", "shutdown"])
def test_an_order_is_carried_out_once(give, done, op):
    assert give(op) == {"object": "edge.admin", "op": op, "done": True}
    assert done == [op]


def test_the_configuration_is_shown(give):
    assert give("config")["config"] == {"node": "kitchen"}


def test_the_log_level_is_set(give):
    before = logging.getLogger().level
    try:
        give("log-level", level="error")
        assert logging.getLogger().level == logging.ERROR
    finally:
        logging.getLogger().setLevel(before)


@pytest.mark.parametrize(
    ("op", "values", "code", "param"),
    [
        ("reload", {"boot": "b0"}, "expired", "boot"),
        ("reload", {"boot": None}, "expired", "boot"),
        ("explode", {}, "unsupported", "op"),
        (["reload"], {}, "unsupported", "op"),
        ("log-level", {}, "invalid_request", "level"),
        ("log-level", {"level": "LOUD"}, "invalid_request", "level"),
        ("log-level", {"level": ["info"]}, "invalid_request", "level"),
    ],
)
def test_anything_else_is_refused_by_name(give, done, op, *, values, code, param):
    with pytest.raises(WireError) as refused:
        give(op, **values)
    assert (refused.value.code.name, refused.value.param) == (code, param)
    assert done == []


def test_what_is_supported_is_told(give):
    with pytest.raises(WireError) as refused:
        give("explode")
    assert refused.value.details["supported"] == list(ADMIN_OPS)
