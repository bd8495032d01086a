"""Names and defaults of the integration."""

import logging
from typing import Final

DOMAIN: Final = "edge_agent"
LOGGER: Final = logging.getLogger(__package__)
MANUFACTURER: Final = "Edge Agent"
DOCUMENTATION: Final = "https://github.com/edge-agent/edge-agent"

# An entry is one node: where it is on the broker.
CONF_ROOT: Final = "root"
CONF_NODE: Final = "node"

# A subentry is one use of a node.
CONVERSATION: Final = "conversation"
AI_TASK_DATA: Final = "ai_task_data"

CONF_TARGET: Final = "target"
CONF_MAX_TOKENS: Final = "max_tokens"
CONF_TEMPERATURE: Final = "temperature"
CONF_TIMEOUT: Final = "timeout"
CONF_LOCAL_STATES: Final = "local_states"
CONF_CONTINUE: Final = "continue_conversation"
CONF_CONFIRM: Final = "confirm"
CONF_PREFILL: Final = "prefill"

SECTION_ADVANCED: Final = "advanced"
"""What most people leave as it is; stored beside the rest."""

TARGET_NODE: Final = "node"
TARGET_ANY: Final = "any"
CONTINUE_NEVER: Final = "never"
CONTINUE_ASKED: Final = "asked"
CONTINUE_ALWAYS: Final = "always"
CONFIRM_SHORT: Final = "short"
CONFIRM_MODEL: Final = "model"

DEFAULT_PROMPT: Final = """You are the voice assistant of this home.
To control it or to look up something about it, call a tool at once; never describe a call.
Never claim to have done what no tool did.
Answer in the language of the user, in one or two short sentences of plain text."""
DEFAULT_TIMEOUT_S: Final = 60
DEFAULT_TASK_TIMEOUT_S: Final = 300

MAX_ROUNDS: Final = 8
"""How often the model may call tools before a turn is ended."""
GONE_AFTER_S: Final = 24 * 3600
"""A node that has been off the broker for so long is worth a repair."""
