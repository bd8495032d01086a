from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.chat import sandbox
from edge_agent.chat.prompt import Dialect, Segment
from edge_agent.chat.request import Message, Tool, ToolCall
from edge_agent.chat.template import MARK, ChatTemplate, builtin, choose
from edge_agent.errors import ConfigError, RequestRefused

SPECIALS = ("<|im_start|>", "<|im_end|>", "[INST]")
LAMP = Tool("set_lamp", "Switch a lamp.", {"type": "object", "properties": {"on": {"type": "boolean"}}})
LAMP_JSON = (
    '{"type": "function", "function": {"name": "set_lamp", "description": "Switch a lamp.", '
    '"parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}}}}'
)
CONVERSATION = (
    Message("system", "Be brief."),
    Message("user", "light on"),
    Message("assistant", tool_calls=(ToolCall("1", "set_lamp", '{"on": true}'),)),
    Message("tool", "ok", name="set_lamp", tool_call_id="1"),
    Message("user", "thanks"),
)
QWEN = (
    "<|im_start|>system\nBe brief.\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n" + LAMP_JSON + "\n</tools>\n"
    "\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> "
    'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
    "<|im_start|>user\nlight on<|im_end|>\n"
    '<|im_start|>assistant\n<tool_call>\n{"name": "set_lamp", "arguments": {"on": true}}\n</tool_call><|im_end|>\n'
    "<|im_start|>user\n<tool_response>\nok\n</tool_response><|im_end|>\n"
    "<|im_start|>user\nthanks<|im_end|>\n<|im_start|>assistant\n"
)
# SmolLM2's: ChatML with a system text of its own, and no word about tools.
SMOL = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_chatml_writes_what_qwen_was_trained_on(chatml):
    name, template = choose(chatml, None)
    assert name == "chatml"
    assert template.render(CONVERSATION, (LAMP,)).text == QWEN


def test_smollm_gets_tools_although_its_template_knows_none(chatml):
    template = ChatTemplate(SMOL, chatml)
    assert template.render(CONVERSATION, (LAMP,)).text == QWEN
    assert template.render((Message("user", "hi"),)).text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_without_generation_the_prompt_ends_with_the_last_message(chatml):
    template = ChatTemplate(builtin("chatml"), chatml)
    messages = CONVERSATION[:2]
    prefix = template.render(messages, (LAMP,), generate=False).text
    assert prefix.endswith("light on<|im_end|>\n")
    assert template.render(messages, (LAMP,)).text.startswith(prefix)


def test_a_template_that_knows_tools_gets_them_as_objects(chatml):
    source = (
        "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}{% for m in messages %}{{ m.role }}"
        "{% for call in m.tool_calls or [] %} {{ call.function.arguments.on | tojson }}{% endfor %}"
        " {{ m.reasoning_content }}\n{% endfor %}"
    )
    messages = (*CONVERSATION[2:4], Message("assistant", "x", reasoning="<hm>"))
    written = ChatTemplate(source, chatml).render(messages, (LAMP,)).text
    assert written == f"{LAMP_JSON}\nassistant true \ntool \nassistant <hm>\n"


def test_llama_and_gemma_have_their_own_marks():
    messages = (Message("system", "S"), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    llama, gemma = (ChatTemplate(builtin(name), Dialect(bos="<s>")) for name in ("llama3", "gemma"))
    assert llama.render(messages).text == (
        "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\na"
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nb<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nc<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert gemma.render(messages).text == (
        "<s><start_of_turn>user\nS\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
        "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"
    )


def test_system_text_opens_the_first_turn_where_the_template_refuses_the_role(chatml):
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    prompt = ChatTemplate(source, chatml).render((Message("system", "S"), Message("user", "a")))
    assert prompt.text == "user: S\n\na\n"


HOSTILE = st.lists(
    st.sampled_from([*SPECIALS, "<", "|im_end|>", "[", "INST]", MARK, " ", "\n", "é", "{{ 7 }}", '"', "\\", "x"]),
    max_size=6,
).map("".join)


def spoken(first, second, third, key, argument):
    """A conversation with client text wherever there can be any."""
    messages = (
        Message("system", first),
        Message("user", second, name=third),
        Message("assistant", third, tool_calls=(ToolCall(first, "f", json.dumps({key: argument})),)),
        Message("tool", second, tool_call_id=first),
        Message("user", third),
    )
    return messages, (Tool("f", first, {"type": "object", "properties": {key: {"enum": [argument]}}}),)


def count_specials(prompt):
    control = "\0".join(segment.text for segment in prompt.segments if segment.control)
    return [control.count(special) for special in SPECIALS]


@settings(deadline=None, max_examples=100)
@given(texts=st.tuples(*[HOSTILE] * 5))
@pytest.mark.parametrize(
    "source", [SMOL, builtin("chatml"), builtin("gemma"), "{{ messages | tojson }}{{ tools | tojson }}"]
)
def test_no_text_becomes_a_special_token(source, texts):
    guarded, unguarded = ChatTemplate(source, Dialect(specials=SPECIALS)), ChatTemplate(source, Dialect())
    written = guarded.render(*spoken(*texts))
    assert written.text == unguarded.render(*spoken(*texts)).text
    assert count_specials(written) == count_specials(guarded.render(*spoken(*"xxxxx")))


def test_marked_characters_are_text_and_all_else_is_control(chatml):
    prompt = ChatTemplate(builtin("chatml"), chatml).render((Message("user", "a<<b"),), generate=False)
    assert prompt.segments == (
        Segment("<|im_start|>user\na", control=True),
        Segment("<<"),
        Segment("b<|im_end|>\n", control=True),
    )


def test_the_mark_itself_cannot_be_smuggled_in(chatml):
    assert ChatTemplate("{{ messages[0].content }}", chatml).render((Message("user", f"a{MARK}"),)).text == "a\ufffd"


def test_the_operators_choice_beats_the_models_own_and_that_beats_a_guess(chatml):
    own = Dialect(template="own", specials=chatml.specials)
    assert choose(own, None)[0] == "model"
    assert choose(own, "gemma")[0] == "gemma"
    assert choose(Dialect(specials=("<|start_header_id|>",)), None)[0] == "llama3"
    assert choose(Dialect(specials=("<start_of_turn>",)), None)[0] == "gemma"


@pytest.mark.parametrize(("dialect", "override"), [(Dialect(), None), (Dialect(), "nope"), (Dialect(), "../x")])
def test_no_template_is_an_error_that_names_the_choices(dialect, override):
    with pytest.raises(ConfigError, match=r"choose one|chatml, gemma, llama3"):
        choose(dialect, override)


def test_the_date_is_given_never_read(chatml):
    source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}no date{% endif %}"
    template = ChatTemplate(source, chatml)
    assert template.render((), today="2026-11-22").text == "22 Nov 2026"
    assert template.render(()).text == "no date"


def test_a_template_that_insists_on_a_date_still_gets_tools(chatml):
    source = "{{ strftime_now('%Y') }}{{ tools | tojson }}"
    assert "set_lamp" in ChatTemplate(source, chatml).render((Message("user", "?"),), (LAMP,), today="2026-11-22").text
    with pytest.raises(RequestRefused, match="strftime_now"):
        ChatTemplate(source, chatml).render((Message("user", "?"),))


def test_a_template_of_the_hub_renders_as_there(chatml):
    source = (
        "{%- for m in messages %}\n  {%- if loop.index > 1 %}{% break %}{% endif %}\n"
        "{% generation %}{{ {'a': '<é>'} | tojson(indent=1) }}{% endgeneration %}\n{%- endfor %}"
    )
    assert ChatTemplate(source, chatml).render((Message("user", "?"),)).text == '{\n "a": "<é>"\n}'


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(10**9) %}{% endfor %}",
        "{% for a in range(99999) %}{{ 'x' * 100 }}{% endfor %}",
        "{{ ('x' * 5000000) | length }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ 1 / 0 }}",
        "{{ missing.field }}",
        "{{ raise_exception('roles must alternate') }}",
    ],
)
def test_a_template_that_misbehaves_is_refused(source, chatml):
    with pytest.raises(RequestRefused) as refusal:
        ChatTemplate(source, chatml).render((Message("user", "?"),))
    assert refusal.value.param == "messages"


@pytest.mark.parametrize("source", ["{% if %}", "{{ x", "{% nonsense %}"])
def test_a_template_that_does_not_compile_is_the_operators_matter(source, chatml):
    with pytest.raises(ConfigError, match="line 1"):
        ChatTemplate(source, chatml)


def test_a_template_may_be_large_but_not_endless(chatml):
    prompt = ChatTemplate("{{ messages[0].content }}", chatml).render((Message("user", "<" * 200_000),))
    assert prompt.segments == (Segment("<" * 200_000),)
    with pytest.raises(RequestRefused):
        ChatTemplate("{{ messages[0].content }}", chatml).render((Message("user", "x" * (sandbox.MAX_TEXT + 1)),))


def rendered(source: str) -> str:
    return sandbox.render(sandbox.load(source), {"n": 300_000_000, "s": "x"}, today=None, param="here")


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set s = 'x' * 99999 %}{% for i in s %}{% for j in s %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{% set a = f(n - 1) %}{% set a = f(n - 1) %}{% endif %}{% endmacro %}{{ f(99) }}",
    ],
)
def test_a_template_that_takes_for_ever_is_stopped(monkeypatch, source):
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 0.2)
    with pytest.raises(RequestRefused, match=r"longer than 0\.2 s"):
        rendered(source)


@pytest.mark.parametrize(
    "source",
    [
        *("{{ s.ljust(n) }}", "{{ s.rjust(width=n) }}", "{{ s.center(n) }}", "{{ '1'.zfill(n) }}"),
        *("{{ s|center(n) }}", "{{ s|indent(n, true) }}", "{{ '%300000000d'|format(1) }}", "{{ '%300000000d' % 1 }}"),
        *(
            "{{ '%*d' % (n, 1) }}",
            "{{ '{:300000000}'.format(1) }}",
            "{{ '{:{}}'.format(1, n) }}",
            "{{ [s]|tojson(indent=n) }}",
        ),
        *("{{ s * n }}", "{% set t = s * 4000000 %}{{ t + t }}"),
    ],
)
def test_no_short_template_writes_gigabytes(source):
    with pytest.raises(RequestRefused, match=r"more than 4194304|cannot render"):
        rendered(source)


def test_bounds_leave_templates_as_they_are():
    source = (
        "{% for i in [1, 2, 3] if i > 1 %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}"
        "{% for _ in missing %}{% else %} none{% endfor %} {{ '%02d' % 7 }} {{ '%s!'|format(s) }}"
        " {{ '{}'.format(4000000) }} {{ s|center(3) }}{{ s.ljust(2) }}{{ 'a' + 'b' }}"
        "{% for i in [[1], [2]] recursive %}{{ i if i is number else loop(i) }}{% endfor %}"
    )
    assert rendered(source) == "1/2,2/2 none 07 x! 4000000  x x ab12"
