from __future__ import annotations

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from edge_agent.chat import schema
from edge_agent.errors import RequestRefused, Unsupported
from edge_agent.wire import WireError


def nested(depth):
    node = {"type": "string"}
    for _ in range(depth):
        node = {"properties": {"a": node}}
    return node


@pytest.mark.parametrize(
    "bad",
    [
        True,
        {"type": "text"},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#/properties/a"},
        {"$ref": "#/$defs/missing"},
        {"$ref": 5},
        {"properties": {"enum": {"$ref": "file:///etc/passwd"}}},
        {"pattern": "("},
        {"pattern": "a{99999999999999999999}"},
        nested(40),
        {"properties": {f"p{i}": {"type": "string"} for i in range(5000)}},
    ],
)
def test_a_schema_that_is_wrong_remote_or_huge_is_refused(bad):
    with pytest.raises(RequestRefused) as refusal:
        schema.check(bad, {}, "here")
    assert refusal.value.param == "here"


@pytest.mark.parametrize("key", ["$id", "$anchor", "$dynamicRef", "patternProperties"])
def test_keywords_that_change_what_a_reference_means_are_unsupported(key):
    with pytest.raises(Unsupported):
        schema.check({"properties": {"a": {key: "x"}}}, {}, "here")


def test_names_and_data_in_a_schema_may_look_like_keywords():
    schema.check(
        {"properties": {"$id": {"type": "string"}, "default": {"enum": [{"$ref": "http://example.org"}]}}}, {}, "x"
    )


def test_references_reach_the_definitions_of_the_request_and_of_the_schema():
    defs = {"room": {"enum": ["hall"]}}
    body = {"properties": {"a": {"$ref": "#/$defs/room"}, "b": {"$ref": "#/$defs/own"}}, "$defs": {"own": True}}
    schema.check(body, defs, "x")
    whole = schema.close(body, defs)
    assert schema.problem(whole, {"a": "hall", "b": 1}, "x") is None
    assert schema.problem(whole, {"a": "attic"}, "x") == "at a: 'attic' is not one of ['hall']"


def test_lifted_definitions_keep_apart_from_others_of_the_same_name():
    body = {
        "properties": {"$ref": {"$ref": "#/$defs/n"}, "o": {"$ref": "#/$defs/other"}},
        "$defs": {"n": {"type": "null"}},
    }
    lifted, own = schema.lift(body, "t.")
    assert lifted == {"properties": {"$ref": {"$ref": "#/$defs/t.n"}, "o": {"$ref": "#/$defs/other"}}}
    assert own == {"t.n": {"type": "null"}}


@pytest.fixture
def library():
    """A server on loopback that hands out schemas, and remembers that it was asked."""

    class Shelf(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked = True
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Shelf) as server:
        server.asked = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nothing_is_fetched_from_the_network(library):
    with pytest.raises(RequestRefused):
        schema.problem({"$ref": f"http://127.0.0.1:{library.server_port}/x.json"}, {}, "here")
    assert not library.asked


def laughs():
    definitions = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)}
    return {"$ref": "#/$defs/a0", "$defs": {**definitions, "a40": {"type": "string"}}}


@pytest.mark.parametrize(
    ("bomb", "value"),
    [
        (laughs(), "x"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, 1),
        ({"pattern": "^(a|a)*$"}, "a" * 60 + "b"),
    ],
)
def test_a_schema_that_explodes_is_refused_soon(bomb, value):
    schema.check(bomb, {}, "here")
    with pytest.raises(WireError) as refusal:
        schema.problem(bomb, value, "here")
    assert refusal.value.param == "here"


def test_a_pattern_that_explodes_is_refused_soon():
    with pytest.raises(RequestRefused, match=re.escape("takes too long")):
        schema.matches("(a|a)*", "a" * 60 + "b", "here")


KEYWORDS = sorted({*Draft202012Validator.VALIDATORS, *schema._KEYWORDS, "unknown"} - {*schema._CLOSED, "$ref"})
WRONG = {"type": "text"}
VALUES = [
    *(None, True, -1, 0, 1, 0.5, 2.0, "string", "text", "a", {}, {"type": "null"}, WRONG),
    *({"a": each} for each in (True, 1, {}, WRONG, "x", [], ["x"], ["x", "x"], [1])),
    *([], [True], [1], [{}], [WRONG], ["a"], ["a", "a"], ["null", "object"], ["null", "null"], ["null", "text"]),
]


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_our_table_and_the_metaschema_judge_alike(keyword):
    for value in VALUES:
        for made in ({keyword: value}, {"properties": {"p": {"items": {keyword: value}}}}):
            try:
                Draft202012Validator.check_schema(made)
                sound = True
            except SchemaError:
                sound = False
            try:
                schema.check(made, {}, "here")
                ours = True
            except RequestRefused:
                ours = False
            assert (made, ours) == (made, sound)


def test_every_keyword_that_is_obeyed_is_checked():
    free = {"$ref", "const", "if"}
    assert Draft202012Validator.VALIDATORS.keys() <= {*schema._KEYWORDS, *schema._CLOSED, *free}


def test_the_tools_of_the_largest_request_are_checked_while_nobody_notices():
    properties = {f"property{number}": {"type": "string"} for number in range(25)}
    began = time.process_time()
    for _ in range(256):
        schema.check({"type": "object", "properties": dict(properties)}, {}, "here")
    assert time.process_time() - began < 0.2
