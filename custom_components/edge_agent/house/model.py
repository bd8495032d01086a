"""What is exposed, by the names people call it. Nothing of Home Assistant."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Thing:
    """One exposed entity."""

    entity_id: str
    name: str
    aliases: tuple[str, ...]
    """Its other names, in the order their owner gave them."""
    domain: str
    area: str | None = None
    """The name of the area that it, or else its device, stands in."""
    floor: str | None = None
    """The name of that area's floor."""
    device_class: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class House:
    """All that is exposed; two surveys of an unchanged house compare equal."""

    things: tuple[Thing, ...] = ()
    """Sorted by name, then by entity id."""
    areas: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Areas that hold a thing, sorted: name → aliases."""
    floors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Floors of these areas, likewise."""
