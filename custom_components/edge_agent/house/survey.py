"""Looks around the house: states and registries become a `House`."""

from homeassistant.components.homeassistant.exposed_entities import async_should_expose
from homeassistant.const import ATTR_DEVICE_CLASS
from homeassistant.core import HomeAssistant, State, callback
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import floor_registry as fr
from homeassistant.helpers import intent

from .model import House, Thing


@callback
def take(hass: HomeAssistant, assistant: str = "conversation") -> House:
    """Survey what is exposed to an assistant, as Home Assistant's own Assist API would describe it."""
    areas: dict[str, tuple[str, ...]] = {}
    floors: dict[str, tuple[str, ...]] = {}
    things: list[Thing] = []
    for state in hass.states.async_all():
        if not async_should_expose(hass, assistant, state.entity_id):
            continue
        entry = er.async_get(hass).async_get(state.entity_id)
        area = _area(hass, entry)
        floor = fr.async_get(hass).async_get_floor(area.floor_id) if area and area.floor_id else None
        if area:
            areas[area.name] = tuple(sorted(area.aliases))
        if floor:
            floors[floor.name] = tuple(sorted(floor.aliases))
        things.append(_thing(hass, state, entry, area.name if area else None, floor.name if floor else None))
    return House(
        things=tuple(sorted(things, key=lambda thing: (thing.name, thing.entity_id))),
        areas=dict(sorted(areas.items())),
        floors=dict(sorted(floors.items())),
    )


def _area(hass: HomeAssistant, entry: er.RegistryEntry | None) -> ar.AreaEntry | None:
    """The entity's own area, or else the one its device is effectively in."""
    if entry is None:
        return None
    area_id = entry.area_id
    if area_id is None and entry.device_id and (device := dr.async_get(hass).async_get(entry.device_id)):
        area_id = dr.async_get_effective_area_id(hass, device)
    return ar.async_get(hass).async_get_area(area_id) if area_id else None


def _thing(
    hass: HomeAssistant, state: State, entry: er.RegistryEntry | None, area: str | None, floor: str | None
) -> Thing:
    # An entity whose owner took all its names away still answers to its id, as Home Assistant's matcher accepts that.
    names = [name for name in intent.async_get_entity_aliases(hass, entry, state=state) if name] or [state.entity_id]
    name, *aliases = dict.fromkeys(names)
    return Thing(
        entity_id=state.entity_id,
        name=name,
        aliases=tuple(aliases),
        domain=state.domain,
        area=area,
        floor=floor,
        device_class=(entry and entry.device_class) or state.attributes.get(ATTR_DEVICE_CLASS),
    )
