"""What passes between the text room and an engine: prompts, constraints and how a model speaks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a prompt. Only control text may contain special tokens; other text is read as written."""

    text: str
    control: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine reads.

    A plain stretch between two special tokens is tokenised in one piece, whatever segments it is made of, so that the
    result equals the model's own template on harmless text.
    """

    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The whole prompt as one string."""
        return "".join(segment.text for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the written text must match: a JSON schema, a regular expression or `calls`; exactly one of the three.

    A schema is JSON text with every `$ref` resolved inside it. Engines with `constrained` obey it token by token.
    """

    json_schema: str | None = None
    regex: str | None = None
    calls: str | None = None
    """The tools that free text may call: a JSON schema whose properties are their names and what each one takes.

    The text may begin with reasoning in `<think>` tags. The answer itself begins like no call unless it is one, in
    `<tool_call>` tags or bare, and whatever stands in `<tool_call>` tags is a call that fits, behind which nothing but
    further calls may stand. Only a tool whose schema the engine cannot enforce is called with any object.
    """
    several: bool = True
    """Whether there may be more than one call."""
    thinking: bool = False
    """The prompt has opened `<think>`, so the text begins inside it."""
    param: str | None = "response_format"
    """The field of the request that it comes from; None when it is several."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the loaded model speaks, as far as its files tell."""

    template: str | None = None
    """Jinja source, as in tokenizer_config.json."""
    specials: tuple[str, ...] = ()
    """Every token that text must never become, as it is written."""
    bos: str = ""
    eos: str = ""
