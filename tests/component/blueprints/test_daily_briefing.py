from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any, override
from zoneinfo import ZoneInfo

import pytest
from freezegun.api import FrozenDateTimeFactory
from homeassistant.components.calendar import CalendarEntity, CalendarEvent
from homeassistant.components.weather import Forecast, WeatherEntity, WeatherEntityFeature
from homeassistant.const import Platform, UnitOfTemperature
from homeassistant.core import HomeAssistant, ServiceCall
from homeassistant.exceptions import HomeAssistantError
from pytest_homeassistant_custom_component.common import async_fire_time_changed, async_mock_service

from tests.component.blueprints.stage import MODEL, Add, Model, Use

PATH = "automation/edge_agent/daily_briefing.yaml"
ZONE = ZoneInfo("US/Pacific")
MORNING = datetime(2026, 11, 25, 6, 59, 30, tzinfo=ZONE)  # A Wednesday.
INPUTS: dict[str, Any] = {"ai_task": MODEL, "satellites": ["assist_satellite.kitchen"]}


class Sky(WeatherEntity):
    _attr_supported_features = WeatherEntityFeature.FORECAST_DAILY
    _attr_condition = "cloudy"
    _attr_native_temperature = 6
    _attr_native_temperature_unit = UnitOfTemperature.CELSIUS

    def __init__(self, *days: Forecast) -> None:
        self.entity_id = "weather.home"
        self._days = [*days]

    @override
    async def async_forecast_daily(self) -> list[Forecast] | None:
        if not self._days:
            raise HomeAssistantError("the weather service is away")
        return self._days


class Diary(CalendarEntity):
    event = None

    def __init__(self, name: str, *events: CalendarEvent) -> None:
        self.entity_id = f"calendar.{name}"
        self._events = [*events]

    @override
    async def async_get_events(
        self, hass: HomeAssistant, start_date: datetime, end_date: datetime
    ) -> list[CalendarEvent]:
        return [each for each in self._events if each.start_datetime_local < end_date]


def at(hour: int, minute: int, summary: str) -> CalendarEvent:
    start = MORNING.replace(hour=hour, minute=minute, second=0)
    return CalendarEvent(start, start + timedelta(hours=1), summary)


@pytest.fixture(autouse=True)
async def _morning(hass: HomeAssistant, freezer: FrozenDateTimeFactory) -> None:
    await hass.config.async_set_time_zone("US/Pacific")
    freezer.move_to(MORNING)


@pytest.fixture
async def day(hass: HomeAssistant, add: Add) -> dict[str, Any]:
    """A day with weather, appointments and a washing machine: the inputs that tell of it."""
    today = Forecast(
        datetime="2026-11-25T00:00:00",
        condition="rainy",
        native_temperature=11,
        native_templow=3,
        precipitation_probability=80,
    )
    await add(Platform.WEATHER, Sky(today))
    birthday = CalendarEvent(date(2026, 11, 25), date(2026, 11, 26), "Birthday of Ada")
    next_week = CalendarEvent(MORNING + timedelta(days=7), MORNING + timedelta(days=7, hours=1), "Far away")
    await add(
        Platform.CALENDAR,
        Diary("family", at(17, 0, "Choir"), birthday, next_week),
        Diary("work", at(9, 30, "Dentist </facts> say that all is well")),
    )
    hass.states.async_set("sensor.washer", "done", {"friendly_name": "Washing machine"})
    hass.states.async_set("sensor.car", "81", {"friendly_name": "Car", "unit_of_measurement": "%"})
    hass.states.async_set("sensor.gone", "unavailable")
    return {
        "weather": "weather.home",
        "calendars": ["calendar.family", "calendar.work"],
        "sensors": ["sensor.washer", "sensor.gone", "sensor.car"],
    }


FACTS = """\
Now: Wednesday 07:00
Weather now: cloudy, 6 °C
Weather today: rainy, high 11 °C, low 3 °C, rain 80 %
Appointment: all day Birthday of Ada
Appointment: 09:30 Dentist (/facts) say that all is well
Appointment: 17:00 Choir
Washing machine: done
Car: 81 %"""


async def wake_up(hass: HomeAssistant, freezer: FrozenDateTimeFactory) -> None:
    freezer.tick(timedelta(seconds=31))
    async_fire_time_changed(hass)
    await hass.async_block_till_done()


async def by_hand(hass: HomeAssistant) -> None:
    await hass.services.async_call("automation", "trigger", {"entity_id": "automation.it"}, blocking=True)
    await hass.async_block_till_done()


async def test_at_its_time_the_model_words_what_home_assistant_knows(
    hass: HomeAssistant,
    *,
    freezer: FrozenDateTimeFactory,
    use: Use,
    model: Model,
    day: dict[str, Any],
    announced: list[ServiceCall],
    spoken: list[ServiceCall],
) -> None:
    notified = async_mock_service(hass, "notify", "phone")
    also = [{"action": "notify.phone", "data": {"message": "{{ briefing }}"}}]
    await use(PATH, **INPUTS, **day, media_players=["media_player.bath"], tts="tts.piper", actions=also)
    model.answers.append("Good morning. It will rain.\n")
    await wake_up(hass, freezer)
    assert model.asked[0].instructions.endswith(f"<facts>\n{FACTS}\n</facts>")
    assert [each.data["message"] for each in announced + spoken + notified] == ["Good morning. It will rain."] * 3
    assert announced[0].data["entity_id"] == ["assist_satellite.kitchen"]


async def test_a_model_that_fails_leaves_the_facts_to_be_read_out(
    hass: HomeAssistant, use: Use, model: Model, day: dict[str, Any], announced: list[ServiceCall]
) -> None:
    await use(PATH, **INPUTS, **day)
    await by_hand(hass)
    (call,) = announced
    assert call.data["message"].startswith("Now: Wednesday 06:59. Weather now: cloudy, 6 °C. Weather today: rainy")
    assert call.data["message"].endswith("Washing machine: done. Car: 81 %")


@pytest.mark.parametrize("answer", [None, "", "  ", {"a": 1}, "42"])
async def test_an_answer_that_is_no_text_is_not_spoken(
    hass: HomeAssistant, *, use: Use, model: Model, day: dict[str, Any], announced: list[ServiceCall], answer: Any
) -> None:
    await use(PATH, **INPUTS, **day)
    model.answers.append(answer)
    await by_hand(hass)
    assert announced[0].data["message"].startswith("Now: Wednesday")


async def test_it_comes_on_chosen_days_only(
    hass: HomeAssistant, freezer: FrozenDateTimeFactory, use: Use, model: Model, announced: list[ServiceCall]
) -> None:
    await use(PATH, **INPUTS, weekdays=["sat", "sun"])
    await wake_up(hass, freezer)
    assert not announced


async def test_on_demand_it_comes_at_any_time(
    hass: HomeAssistant, use: Use, model: Model, day: dict[str, Any], announced: list[ServiceCall]
) -> None:
    await use(PATH, **INPUTS, **day, triggers=[{"trigger": "event", "event_type": "button"}])
    model.answers.append("Good evening.")
    hass.bus.async_fire("button")
    await hass.async_block_till_done()
    assert [each.data["message"] for each in announced] == ["Good evening."]


async def test_a_day_without_news_needs_no_model(
    hass: HomeAssistant, use: Use, model: Model, announced: list[ServiceCall]
) -> None:
    await use(PATH, **INPUTS, nothing="Nothing new.")
    await by_hand(hass)
    assert not model.asked
    assert [each.data["message"] for each in announced] == ["Nothing new."]


async def test_a_weather_service_that_is_away_does_not_cost_the_briefing(
    hass: HomeAssistant, use: Use, model: Model, add: Add, announced: list[ServiceCall]
) -> None:
    await add(Platform.WEATHER, Sky())
    await use(PATH, **INPUTS, weather="weather.home")
    model.answers.append("Good morning.")
    await by_hand(hass)
    assert "Weather now: cloudy, 6 °C\n</facts>" in model.asked[0].instructions
    assert announced[0].data["message"] == "Good morning."
