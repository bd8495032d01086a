"""What goes wrong on the wire, as a person hears it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, override

from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.translation import async_get_translations

from .const import DOMAIN
from .wire import WireError

_PLAIN: Final = frozenset(
    {"busy", "cancelled", "context_overflow", "draining", "engine_failed", "expired", "forbidden", "unavailable"}
)
"""Codes that have a sentence of their own; the others share one that gives the node's words."""


class AgentError(HomeAssistantError):
    """A request that a node refused or could not finish.

    `code` is the wire's. Reads as English, like every translated error, until `localise` has told it the language of
    whoever will hear it.
    """

    def __init__(self, key: str, code: str = "", **placeholders: object) -> None:
        super().__init__(
            translation_domain=DOMAIN,
            translation_key=key,
            translation_placeholders={name: str(value) for name, value in placeholders.items()},
        )
        self.code = code or key
        self._localised = ""

    @classmethod
    def from_wire(cls, error: WireError, node: str) -> AgentError:
        """Say in our words what the wire says."""
        code = "busy" if error.code.name == "rate_limited" else error.code.name
        key = "offline" if error.details.get("offline") else code if code in _PLAIN else "request_failed"
        details = {name: value for name, value in error.details.items() if name.endswith("tokens")}
        return cls(key, code, node=node, message=error.message, **details)

    async def localise(self, hass: HomeAssistant, language: str) -> None:
        """Read in this language from now on, if there is a translation."""
        self._localised = await sentence(hass, language, self.translation_key or "", self.translation_placeholders)

    @override
    def __str__(self) -> str:
        return self._localised or super().__str__()


async def sentence(hass: HomeAssistant, language: str, key: str, placeholders: dict[str, str] | None = None) -> str:
    """One of the integration's sentences, in this language or else in English."""
    texts = await async_get_translations(hass, language, "exceptions", {DOMAIN})
    text = texts.get(f"component.{DOMAIN}.exceptions.{key}.message", key)
    return text.format(**placeholders) if placeholders else text


@contextmanager
def wire_errors(node: str) -> Iterator[None]:
    """The one place where errors of the wire become errors of Home Assistant; `node` names who was asked."""
    try:
        yield
    except WireError as error:
        raise AgentError.from_wire(error, node) from error
