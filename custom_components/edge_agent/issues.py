"""What only a person can mend, raised as issues and taken back when it is mended; `repairs.py` has the flows."""

from typing import Final

from homeassistant.const import CONF_PROTOCOL, CONF_USERNAME
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir

from .connection import mqtt_entry
from .const import DOCUMENTATION, DOMAIN
from .wire import MIN_PROTOCOL, PROTOCOL, WireError

PROTOCOL_NODE_OLD: Final = "protocol_node_old"
PROTOCOL_HOME_OLD: Final = "protocol_home_old"
CONTEXT_TOO_SMALL: Final = "context_too_small"
NODE_GONE: Final = "node_gone"
NODE_REMOVED: Final = "node_removed"
BROKER_OLD: Final = "broker_old"
BROKER_OPEN: Final = "broker_open"
_NUMBERS: Final = {CONTEXT_TOO_SMALL: {"prompt_tokens": "?", "limit_tokens": "?"}}
"""What a node may leave unsaid, but the issue has a place for."""
_REMOVABLE: Final = (NODE_GONE, NODE_REMOVED)
"""Their repair removes the entry."""
_OF_NODE: Final = (PROTOCOL_NODE_OLD, PROTOCOL_HOME_OLD, NODE_GONE, NODE_REMOVED)


@callback
def raise_issue(hass: HomeAssistant, kind: str, owner: str = "", **placeholders: object) -> None:
    """Raise one kind of issue; `owner` is the id of the entry or subentry it is about."""
    removable = kind in _REMOVABLE
    ir.async_create_issue(
        hass,
        DOMAIN,
        _id(kind, owner),
        data={"entry_id": owner} if removable else None,
        is_fixable=removable,
        severity=ir.IssueSeverity.WARNING,
        learn_more_url=f"{DOCUMENTATION}/blob/main/docs/home-assistant.md#{kind.replace('_', '-')}",
        translation_key=kind,
        translation_placeholders={
            **_NUMBERS.get(kind, {}),
            **{name: str(value) for name, value in placeholders.items()},
        },
    )


@callback
def clear_issue(hass: HomeAssistant, kind: str, owner: str = "") -> None:
    """Take it back; nothing happens if it was not raised."""
    ir.async_delete_issue(hass, DOMAIN, _id(kind, owner))


@callback
def clear_node(hass: HomeAssistant, entry_id: str) -> None:
    """Take back everything that was raised about a node."""
    for kind in _OF_NODE:
        clear_issue(hass, kind, entry_id)


@callback
def check_protocol(hass: HomeAssistant, entry_id: str, node: str, refusal: WireError | None) -> None:
    """Say which side to upgrade when a node's card is of a protocol that is not spoken here."""
    supported = refusal.details.get("supported", ()) if refusal else ()
    kind = PROTOCOL_NODE_OLD if supported and max(supported) < MIN_PROTOCOL else PROTOCOL_HOME_OLD
    for each in (PROTOCOL_NODE_OLD, PROTOCOL_HOME_OLD):
        if supported and each == kind:
            theirs, ours = (", ".join(map(str, each)) for each in (supported, range(MIN_PROTOCOL, PROTOCOL + 1)))
            raise_issue(hass, kind, entry_id, node=node, theirs=theirs, ours=ours)
        else:
            clear_issue(hass, each, entry_id)


@callback
def check_broker(hass: HomeAssistant) -> None:
    """Say what is missing on the way to the broker: MQTT 5, and a user whose topics it can protect."""
    entry = mqtt_entry(hass)
    if entry is None:
        return
    for kind, sound in (
        (BROKER_OLD, entry.data.get(CONF_PROTOCOL, "3.1.1") == "5"),
        (BROKER_OPEN, bool(entry.data.get(CONF_USERNAME))),
    ):
        if sound:
            clear_issue(hass, kind)
        else:
            raise_issue(hass, kind)


@callback
def clear_broker(hass: HomeAssistant) -> None:
    """Take back what was raised about the broker, when nobody here uses it any more."""
    clear_issue(hass, BROKER_OLD)
    clear_issue(hass, BROKER_OPEN)


def _id(kind: str, owner: str) -> str:
    return f"{kind}_{owner}" if owner else kind
