"""Home Assistant's own MQTT connection, carrying the requests of all entries of one root."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from homeassistant.components import mqtt
from homeassistant.config_entries import ConfigEntry, ConfigEntryState
from homeassistant.const import CONF_USERNAME
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import ConfigEntryNotReady, HomeAssistantError
from homeassistant.helpers import instance_id
from homeassistant.util.hass_dict import HassKey

from .client import Client
from .const import DOMAIN, LOGGER
from .wire import is_segment

_CONNECTIONS: Final[HassKey[dict[str, Connection]]] = HassKey(f"{DOMAIN}_connections")
_QOS: Final = 0
"""Nothing is acknowledged: a request that Home Assistant sends within 40 ms of an acknowledgement waits that long, for
its connection delays small packets (no TCP_NODELAY). What is lost instead, the exchange asks for again."""
_UP_S: Final = 10.0
"""How long the first subscription may take: Home Assistant gathers them for half a second, then the broker answers."""


class Connection:
    """One client and its two subscriptions, shared by whoever opened it; ends with the last one's `close`."""

    def __init__(self, hass: HomeAssistant, root: str, name: str) -> None:
        self.client = Client(name, self._publish, root=root)
        self.users = 0
        self._hass = hass
        self._root = root
        self._up = asyncio.Event()
        self._missing: set[str] = set()
        self._ends: list[Callable[[], None]] = []
        self._listeners: list[Callable[[], None]] = []

    async def up(self) -> None:
        """Subscribe, and wait until the broker has confirmed it; raises `ConfigEntryNotReady` when it does not."""
        try:
            if not self._ends:
                await self._subscribe()
            async with asyncio.timeout(_UP_S):
                await self._up.wait()
        except (HomeAssistantError, TimeoutError) as error:
            raise ConfigEntryNotReady(translation_domain=DOMAIN, translation_key="broker_not_ready") from error

    @callback
    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call whenever the connection comes or goes; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @callback
    def close(self) -> None:
        """Give it back."""
        self.users -= 1
        if not self.users:
            self.client.stop()
            self._unsubscribe()
            self._hass.data[_CONNECTIONS].pop(self._root, None)

    async def _subscribe(self) -> None:
        self._ends.append(mqtt.async_subscribe_connection_status(self._hass, self._connected))
        self._follow_mqtt()
        self._missing = set(self.client.filters)
        for topic in self.client.filters:
            self._ends.append(await mqtt.async_subscribe(self._hass, topic, self._heard, _QOS, None))
            self._ends.append(mqtt.async_on_subscribe_done(self._hass, topic, _QOS, self._subscribed(topic)))

    @callback
    def _follow_mqtt(self) -> None:
        if entry := mqtt_entry(self._hass):
            self._ends.append(entry.async_on_state_change(partial(self._mqtt_changed, entry)))

    @callback
    def _mqtt_changed(self, entry: ConfigEntry) -> None:
        """Follow a reload of MQTT: it would keep our subscriptions, and we could no longer end them."""
        if entry.state is ConfigEntryState.UNLOAD_IN_PROGRESS:
            self._unsubscribe()
            self._follow_mqtt()
            self._tell()
        elif entry.state is ConfigEntryState.LOADED and len(self._ends) == 1:
            self._unsubscribe()
            self._hass.async_create_task(self._subscribe(), f"{DOMAIN} subscribe")

    @callback
    def _unsubscribe(self) -> None:
        self.client.down()
        while self._ends:
            self._ends.pop()()

    async def _publish(self, topic: str, payload: bytes) -> None:
        # The answer may be here before the broker's acknowledgement, which nobody has to wait for: what is lost with
        # the connection, the exchange sends again.
        self._hass.async_create_background_task(self._deliver(topic, payload), f"{DOMAIN} publish", eager_start=True)

    async def _deliver(self, topic: str, payload: bytes) -> None:
        try:
            await mqtt.async_publish(self._hass, topic, payload, 1)
        except HomeAssistantError as error:
            LOGGER.debug("Not published to %s: %s", topic, error)

    @callback
    def _heard(self, message: mqtt.ReceiveMessage) -> None:
        if message.retain and self.client.topics.out(self.client.name) == message.topic:
            return  # An answer is never retained: this one is somebody's mistake, or worse.
        payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
        self.client.heard(message.topic, payload)

    def _subscribed(self, topic: str) -> Callable[[], None]:
        @callback
        def done() -> None:
            self._missing.discard(topic)
            if not self._missing and not self.client.connected:
                self.client.up()
                self._up.set()
                self._tell()

        return done

    @callback
    def _connected(self, connected: bool) -> None:
        self.client.down()
        self._tell()
        if connected:
            self._missing = set(self.client.filters)  # Both are subscribed again before anything is asked.
            self._hass.async_create_task(self._follow_name(), f"{DOMAIN} name")

    @callback
    def _tell(self) -> None:
        for listener in [*self._listeners]:
            listener()

    async def _follow_name(self) -> None:
        """Answer to another name when Home Assistant logs in to the broker as somebody else."""
        name = await client_name(self._hass)
        if name != self.client.name and self._ends:
            self._unsubscribe()
            self.client.name = name
            await self._subscribe()


def mqtt_entry(hass: HomeAssistant) -> ConfigEntry | None:
    """The entry of Home Assistant's MQTT integration, if it is set up."""
    entries = hass.config_entries.async_entries(mqtt.DOMAIN, include_ignore=False, include_disabled=False)
    return next(iter(entries), None)


async def client_name(hass: HomeAssistant) -> str:
    """Who Home Assistant is on the wire: its user of the broker, which an access list can enforce, where that fits."""
    entry = mqtt_entry(hass)
    user = entry.data.get(CONF_USERNAME) if entry else None
    if isinstance(user, str) and is_segment(user):
        return user
    return f"home_assistant-{(await instance_id.async_get(hass))[:8]}"


async def connect(hass: HomeAssistant, root: str) -> Connection:
    """Open the connection of a root, or share it; raises `ConfigEntryNotReady` while MQTT is not there."""
    if not await mqtt.async_wait_for_mqtt_client(hass):
        raise ConfigEntryNotReady(translation_domain=DOMAIN, translation_key="mqtt_missing")
    connections = hass.data.setdefault(_CONNECTIONS, {})
    name = await client_name(hass)
    connection = connections.get(root)
    if connection is None:
        connection = connections[root] = Connection(hass, root, name)
    connection.users += 1
    try:
        await connection.up()
    except BaseException:
        connection.close()
        raise
    return connection


def mqtt_loaded(hass: HomeAssistant) -> bool:
    """Whether Home Assistant's MQTT integration is set up and running."""
    entry = mqtt_entry(hass)
    return entry is not None and entry.state is ConfigEntryState.LOADED
