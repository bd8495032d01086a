"""For `script/bench ha` alone: times what holds the event loop of this Home Assistant, and tells whose work it was.

`watch.start` begins; `watch.stop` ends it and returns the longest callbacks in which Edge Agent's component ran.
"""

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant, ServiceCall, ServiceResponse, SupportsResponse

from .stopwatch import Stopwatch

DOMAIN = "watch"


async def async_setup_entry(hass: HomeAssistant, _entry: ConfigEntry) -> bool:
    """Register the two actions."""
    stopwatch = Stopwatch()

    async def start(_call: ServiceCall) -> None:
        stopwatch.start()

    async def stop(_call: ServiceCall) -> ServiceResponse:
        return stopwatch.stop()

    hass.services.async_register(DOMAIN, "start", start)
    hass.services.async_register(DOMAIN, "stop", stop, supports_response=SupportsResponse.ONLY)
    return True
