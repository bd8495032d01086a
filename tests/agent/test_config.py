import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.chat import named
from edge_agent.config import Config, Tls, default_node, load, options
from edge_agent.errors import ConfigError
from edge_agent.models import catalogue
from edge_agent.shipped import shipped
from edge_agent.wire import POOL, is_segment

KNOWN = [each.name for each in dataclasses.fields(Config) if each.name != "source"]


@pytest.fixture
def file(tmp_path):
    """Write a configuration file and return its path."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "agent.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def refused(file):
    """The lines of the refusal of a file and an environment, without the file's own name."""

    def lines(text: str | bytes, environ: dict[str, str] | None = None) -> list[str]:
        path = file(text)
        with pytest.raises(ConfigError) as caught:
            load(path, environ or {})
        return str(caught.value).replace(f"{path}: ", "").splitlines()

    return lines


def test_nothing_given_means_the_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load(None, {"HOME": str(tmp_path)})
    assert config == Config(data_dir=tmp_path / ".local/share/edge-agent")


def test_the_example_is_complete_and_equals_the_defaults():
    path = shipped("agent.example.yaml")
    text = path.read_text()
    assert [o.path for o in options() if not re.search(rf"^[ #]*{o.path[-1]}(_file)?:", text, re.MULTILINE)] == []
    config = load(path, {})
    assert config == Config(data_dir=config.data_dir, source=path)


def test_what_the_example_comments_out_is_right_as_well(tmp_path, file):
    for name in ("broker-password", "ca.pem", "node.pem", "node.key"):
        (tmp_path / name).write_text("x")
    text = re.sub(
        r"^( *)# ((?: *\w+:|  *- )[^#\n]*)", r"\1\2", shipped("agent.example.yaml").read_text(), flags=re.MULTILINE
    )
    once = re.sub(r"^ *(tls|options|templates): \{\}.*\n", "", text, flags=re.MULTILINE)
    config = load(file(once), {})
    assert (config.node, config.template, config.broker.password) == ("kitchen", "chatml", "x")
    assert config.broker.tls == Tls(tmp_path / "ca.pem", tmp_path / "node.pem", tmp_path / "node.key")
    assert dict(config.engine.options) == {"threads": 2}
    assert named.build("shorten", config.templates["shorten"]).expand({"text": "x"})[1]["content"] == "Shorten: x"


def test_every_problem_is_reported_at_once_with_place_and_remedy(refused):
    text = """
        broker: {port: 99999, hots: x, username: 7, tls: {key: /nowhere/key.pem}}
        limits: {max_tokens: many, timeout_s: .nan}
        backlog: 3
        pool: {join: perhaps}
        admin: {clients: [a/b]}
        log: {level: loud}
        node: any
        models: {mine: 3}
        engin: {}
    """
    environ = {"EDGE_AGENT_BROKER__KEEPALIVE_S": "0", "EDGE_AGENT_BROKR__HOST": "x", "EDGE_AGENT_LOG__FORMAT": "xml"}
    assert sorted(refused(text, environ)) == sorted(
        [
            "broker.port: 99999 is not between 1 and 65535",
            "broker.hots: is unknown; did you mean host?",
            "broker.username: 7 is not a user name; put it in quotes",
            "broker.tls.key: there is no file /nowhere/key.pem",
            "limits.max_tokens: 'many' is not a whole number",
            "limits.timeout_s: nan is not between 1 and 86400",
            "backlog: 3 is not a mapping of size, per_client, finals_per_client, finals_bytes_per_client, clients",
            "pool.join: 'perhaps' is not true or false",
            "admin.clients: ['a/b'] is not a list of client names of A-Z a-z 0-9 _ . -",
            "log.level: 'loud' is not one of debug, info, warning, error",
            "node: 'any' is not 1 to 64 of A-Z a-z 0-9 _ . - and not `any`",
            "models.mine: 3 is not a mapping",
            "engin: is unknown; did you mean engine?",
            "EDGE_AGENT_BROKER__KEEPALIVE_S: broker.keepalive_s: 0 is not between 5 and 3600",
            "EDGE_AGENT_BROKR__HOST: brokr: is unknown; did you mean broker?",
            "EDGE_AGENT_LOG__FORMAT: log.format: 'xml' is not one of auto, human, json",
        ]
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("limits: {timeout_s: 100, max_timeout_s: 50}", "limits.timeout_s: 100 is more than max_timeout_s, 50"),
        ("broker: {password: x}", "broker.username: is needed with a password"),
        (f"broker: {{tls: {{key: {__file__}}}}}", "broker.tls.certificate: needs the certificate it belongs to"),
        ("broker: {port: true}", "broker.port: true is not a whole number"),
        ("broker: {timeout_s: true}", "broker.timeout_s: true is not a number of seconds"),
        ("- 1", "is not a mapping of settings"),
        ('"a\\nb": 1', "'a\\nb': is unknown; known are " + ", ".join(KNOWN)),
        ("model:", "model: null is not a model's name or path"),
        ("broker: {root: a//b}", "broker.root: 'a//b' is not topic segments of A-Z a-z 0-9 _ . -, joined by /"),
        (b"\xff", "is not UTF-8 at byte 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(refused, text, problem):
    assert refused(text) == [problem]


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("node: a\nnode: b", ":2:1: node is given twice"),
        ("broker: {host: a, host: b}", ":1:19: host is given twice"),
        ("a: [", ":1:5: expected the node content, but found '<stream end>'"),
        ("x: " + "[" * 100_000, "is not YAML: maximum recursion depth exceeded"),
        ("#" * (1 << 20) + "\n", ": is larger than 1048576 bytes, too large for a configuration"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(file, text, end):
    with pytest.raises(ConfigError) as caught:
        load(file(text), {})
    assert end in str(caught.value)


def test_the_environment_goes_over_the_file(file):
    environ = {
        "EDGE_AGENT_BROKER__PORT": "8883",
        "EDGE_AGENT_BROKER__PASSWORD": "0123",
        "EDGE_AGENT_BROKER__USERNAME": "yes",
        "EDGE_AGENT_ADMIN__CLIENTS": "[anna, ben]",
        "EDGE_AGENT_ENGINE__OPTIONS__THREADS": "2",
        "EDGE_AGENT_BROKER__TLS": "{}",
        "EDGE_AGENT_TEMPLATE": "",
        "EDGE_AGENT_TEST_MODEL": "not ours",
        "PATH": "/bin",
    }
    config = load(file("broker: {host: example, port: 1}\nengine:\ntemplate: chatml"), environ)
    assert (config.broker.host, config.broker.port, config.broker.tls) == ("example", 8883, Tls())
    assert (config.broker.username, config.broker.password) == ("yes", "0123"), "text is taken as it stands"
    assert config.admin.clients == {"anna", "ben"}
    assert dict(config.engine.options) == {"threads": 2}
    assert config.template is None, "an empty variable is null"


def test_models_of_the_configuration_suit_the_catalogue(file):
    mine = yaml.safe_load(shipped("models.yaml").read_text())["smollm2-135m"]
    config = load(file(yaml.safe_dump({"models": {"mine": mine}})), {})
    assert catalogue.load(config.models)["mine"].context == 8192


def test_an_empty_section_is_the_default(file):
    config = load(file("broker:\nlimits:\ntemplates:\n"), {})
    assert config == Config(data_dir=config.data_dir, source=config.source)


def test_a_variable_below_something_that_is_no_section_does_not_hide_the_fault(refused):
    environ = {"EDGE_AGENT_BACKLOG__SIZE": "4", "EDGE_AGENT_POOL__JOIN": "["}
    assert refused("backlog: 3", environ) == [
        "EDGE_AGENT_POOL__JOIN: is not YAML",
        "backlog: 3 is not a mapping of size, per_client, finals_per_client, finals_bytes_per_client, clients",
    ]


def test_a_secret_comes_out_of_a_file_and_stays_secret(file, tmp_path, refused):
    (tmp_path / "password").write_text("hunter2\n\n")
    config = load(file("broker: {username: me, password_file: password}"), {})
    assert config.broker.password == "hunter2\n", "one final newline is dropped"
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(refused("broker: {username: me, password: [hunter2]}"))
    both = "broker: {username: me, password: hunter2, password_file: password}"
    assert refused(both) == ["broker.password_file: is given beside password: keep one of them"]
    assert refused("broker: {username: me, password_file: nowhere}") == [
        "broker.password_file: nowhere cannot be read: No such file or directory"
    ]
    assert refused("broker: {username: me, password_file: 7}") == ["broker.password_file: is not the path of a file"]
    named = {"EDGE_AGENT_BROKER__PASSWORD_FILE": "nowhere", "EDGE_AGENT_BROKER__USERNAME": "me"}
    assert refused("", named) == [
        "EDGE_AGENT_BROKER__PASSWORD_FILE: broker.password_file: nowhere cannot be read: No such file or directory"
    ]


def test_options_of_the_engine_may_be_secret_too(file):
    assert "hunter2" not in repr(load(file("engine: {options: {api_key: hunter2}}"), {}))


def test_credentials_of_systemd_come_before_files_beside_the_configuration(file, tmp_path):
    (tmp_path / "password").write_text("beside")
    held = tmp_path / "credentials"
    held.mkdir()
    path = file("broker: {username: me, password_file: password}\ndata_dir: data")
    assert load(path, {"CREDENTIALS_DIRECTORY": str(held)}).broker.password == "beside"
    (held / "password").write_text("held")
    config = load(path, {"CREDENTIALS_DIRECTORY": str(held)})
    assert config.broker.password == "held"
    assert config.data_dir == tmp_path / "data", "relative paths start at the file's folder"


def test_the_file_is_searched_for_from_the_nearest_place_outwards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {name: tmp_path / name for name in ("named.yaml", "agent.yaml", "edge-agent/agent.yaml")}
    for name, place in places.items():
        place.parent.mkdir(exist_ok=True)
        place.write_text(f"model: {name}")
    environ = {"EDGE_AGENT_CONFIG": str(places["named.yaml"]), "XDG_CONFIG_HOME": str(tmp_path)}
    assert load(places["agent.yaml"], environ).model == "agent.yaml"
    for name, place in places.items():
        found = load(None, environ)
        assert found.model == name
        assert found.source is not None
        place.unlink()
        if environ.pop("EDGE_AGENT_CONFIG", None):
            with pytest.raises(ConfigError, match=r"named\.yaml: cannot be read: No such file"):
                load(None, {**environ, "EDGE_AGENT_CONFIG": "named.yaml"})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"STATE_DIRECTORY": "/var/lib/edge-agent:/other", "XDG_DATA_HOME": "/data"}, "/var/lib/edge-agent"),
        ({"XDG_DATA_HOME": "/data", "HOME": "/home/me"}, "/data/edge-agent"),
        ({"HOME": "/home/me"}, "/home/me/.local/share/edge-agent"),
    ],
)
def test_data_is_kept_where_the_system_wants_it(file, environ, expected):
    assert load(file(""), environ).data_dir == Path(expected)


def test_a_password_in_the_clear_is_warned_of_unless_it_stays_on_the_host(file):
    remote = "broker: {host: broker.example, username: me, password: hunter2%s}"
    [warning] = load(file(remote % ""), {}).warnings
    assert "in the clear" in warning
    assert "hunter2" not in warning
    [warning] = load(file(remote % ", tls: {insecure: true}"), {}).warnings
    assert "insecure" in warning
    assert load(file(remote % ", tls: {}"), {}).warnings == ()
    for host in ("localhost", "127.0.0.2", "::1"):
        assert load(file(f"broker: {{host: '{host}', username: me, password: x}}"), {}).warnings == ()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(name=st.text())
def test_any_host_name_makes_a_node_name(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: name)
        node = default_node()
    assert is_segment(node)
    assert node != POOL


def _loads_or_is_refused(path: Path) -> bool:
    try:
        load(path, {})
    except ConfigError as error:
        return all(line.startswith(str(path)) for line in str(error).splitlines())
    return True


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_whatever_stands_in_the_file_it_loads_or_is_refused(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    values: dict = {}
    for option in data.draw(st.lists(st.sampled_from([*options()]), max_size=4)):
        section = values
        for name in option.path[:-1]:
            section = section.setdefault(name, {})
        section[option.path[-1]] = data.draw(_VALUES)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert _loads_or_is_refused(path)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(content=st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_whatever_bytes_the_file_has_it_loads_or_is_refused(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    assert _loads_or_is_refused(path)
