from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any, Final

import pytest
from homeassistant.helpers import llm
from pytest_homeassistant_custom_component.common import async_mock_service

from custom_components.edge_agent.house import confirm
from custom_components.edge_agent.house.confirm import Done, confirmation
from custom_components.edge_agent.house.sentences import LANGUAGES

LAMP: Final = ("light.bedroom_lamp", "Bedroom Lamp")
CEILING: Final = ("light.kitchen", "Kitchen Light")
COUNTER: Final = ("light.counter", "Counter")
THIRD: Final = ("light.third", "Third")


def done(
    tool: str, *things: tuple[str, str], area: str = "", floor: str = "", speech: str = "", **arguments: Any
) -> Done:
    """A call that succeeded, as the Assist API tells of it."""
    places = [{"name": name, "type": kind, "id": name} for kind, name in (("area", area), ("floor", floor)) if name]
    entities = [{"name": name, "type": "entity", "id": entity_id} for entity_id, name in things]
    spoken = {"plain": {"speech": speech, "extra_data": None}} if speech else {}
    return Done(
        tool,
        arguments,
        {"speech": spoken, "response_type": "action_done", "data": {"success": places + entities, "failed": []}},
    )


def on(*things: tuple[str, str], **more: Any) -> Done:
    return done("intent__HassTurnOn", *things, **more)


def off(*things: tuple[str, str], **more: Any) -> Done:
    return done("intent__HassTurnOff", *things, **more)


TV: Final = ("media_player.tv", "TV")
ROBBY: Final = ("vacuum.robby", "Robby")
LIST: Final = ("todo.shopping", "Shopping List")


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ([off(CEILING)], "Turned off the kitchen light."),
        ([on(("switch.x", "Coffee Machine"))], "Turned on the coffee machine."),
        ([on(ROBBY)], "Turned on Robby."),
        ([on(TV)], "Turned on the TV."),
        ([off(LAMP, CEILING, COUNTER, area="Kitchen")], "Turned off 3 lights in the kitchen."),
        ([off(LAMP, CEILING, COUNTER, floor="Ground Floor")], "Turned off 3 lights on the ground floor."),
        ([off(LAMP, CEILING, COUNTER, floor="Upstairs")], "Turned off 3 lights (upstairs)."),
        ([off(LAMP, CEILING, COUNTER, area="Anna's Room")], "Turned off 3 lights in Anna's Room."),
        ([on(CEILING, TV)], "Turned on the kitchen light and the TV."),
        ([on(CEILING, TV, ROBBY)], "Turned on 3 devices."),
        ([on(LAMP), on(CEILING)], "Turned on the bedroom lamp and the kitchen light."),
        ([on(LAMP), on(CEILING), on(COUNTER), on(THIRD)], "Turned on 4 lights."),
        ([on(LAMP), on(LAMP)], "Turned on the bedroom lamp."),
        ([off(LAMP), on(("lock.door", "Front Door"))], "Turned off the bedroom lamp. Locked the front door."),
        ([off(LAMP), on(CEILING), on(("lock.door", "Front Door"))], "All done."),
        ([on(("cover.blind", "Left Blind"))], "Opened the left blind."),
        ([off(("cover.blind", "Left Blind"))], "Closed the left blind."),
        ([on(("valve.water", "Garden Water"))], "Opened Garden Water."),
        ([off(("lock.door", "Front Door"))], "Unlocked the front door."),
        ([on(("scene.movie", "Movie Night"))], "Activated Movie Night."),
        ([on(("script.night", "Good Night"))], "Started Good Night."),
        ([on(("button.bell", "Doorbell"))], "Pressed Doorbell."),
        ([done("intent__HassSetPosition", ("cover.b", "Left Blind"), position=50)], "Set the left blind to 50 %."),
        ([done("intent__HassStopMoving", ("cover.b", "Left Blind"))], "Stopped the left blind."),
        ([done("light__HassLightSet", LAMP, brightness=40)], "Set the bedroom lamp to 40 %."),
        ([done("light__HassLightSet", LAMP, brightness=40, color="red")], "Set the bedroom lamp to red and 40 %."),
        ([done("light__HassLightSet", LAMP, temperature=2700)], "Set the bedroom lamp to 2700 Kelvin."),
        ([done("assist__light__HassLightSet", LAMP, brightness=0)], "Set the bedroom lamp to 0 %."),
        (
            [done("climate__HassClimateSetTemperature", ("climate.x", "Thermostat"), temperature=21.5)],
            "Set the thermostat to 21.5 degrees.",
        ),
        ([done("fan__HassFanSetSpeed", ("fan.x", "Bedroom Fan"), percentage=60)], "Set the bedroom fan to 60 %."),
        ([done("media_player__HassSetVolume", TV, volume_level=30)], "Set the volume of the TV to 30 %."),
        ([done("media_player__HassSetVolumeRelative", TV, volume_step="up")], "Turned up the TV."),
        ([done("media_player__HassSetVolumeRelative", TV, volume_step=-20)], "Turned down the TV."),
        ([done("media_player__HassMediaPause", TV)], "Paused the TV."),
        ([done("media_player__HassMediaUnpause", TV)], "Resumed the TV."),
        ([done("media_player__HassMediaNext", TV)], "Skipped to the next track."),
        ([done("media_player__HassMediaPrevious", TV)], "Back to the previous track."),
        ([done("media_player__HassMediaPlayerMute", TV)], "Muted the TV."),
        ([done("media_player__HassMediaPlayerUnmute", TV)], "Unmuted the TV."),
        ([done("vacuum__HassVacuumStart", ROBBY)], "Started Robby."),
        ([done("vacuum__HassVacuumReturnToBase", ROBBY)], "Sent Robby back to base."),
        ([done("vacuum__HassVacuumCleanArea", ROBBY, area="Kitchen")], "Started cleaning the kitchen."),
        ([done("lawn_mower__HassLawnMowerDock", ("lawn_mower.s", "Shaun"))], "Sent Shaun back to base."),
        ([done("intent__HassStartTimer", minutes=5)], "Timer set for 5 minutes."),
        ([done("intent__HassStartTimer", hours=1, minutes=1, seconds=0)], "Timer set for 1 hour and 1 minute."),
        ([done("intent__HassStartTimer", minutes=10, name="pizza")], "Pizza timer set for 10 minutes."),
        (
            [done("intent__HassStartTimer", minutes=2, conversation_command="turn off the light")],
            "I will do that in 2 minutes.",
        ),
        ([done("intent__HassIncreaseTimer", minutes=2)], "Added 2 minutes to the timer."),
        ([done("intent__HassDecreaseTimer", seconds=30)], "Took 30 seconds off the timer."),
        ([done("intent__HassCancelTimer")], "Timer cancelled."),
        ([done("intent__HassCancelAllTimers")], "All timers cancelled."),
        ([done("intent__HassPauseTimer")], "Timer paused."),
        ([done("intent__HassUnpauseTimer")], "Timer resumed."),
        ([done("todo__HassListAddItem", LIST, item="milk")], "Added milk to Shopping List."),
        ([done("todo__HassListCompleteItem", LIST, item="milk")], "Checked off milk."),
        ([done("todo__HassListRemoveItem", LIST, item="milk")], "Removed milk from Shopping List."),
        (
            [done("assist_satellite__HassBroadcast", ("assist_satellite.k", "Kitchen"), message="Dinner")],
            "Announced.",
        ),
        (
            [done("humidifier__HassHumidifierSetpoint", speech="The Humidifier is set to 50%", humidity=50)],
            "The Humidifier is set to 50%",
        ),
        ([done("intent_script__Joke", speech="Knock, knock.")], "Knock, knock."),
    ],
)
def test_what_was_done_is_said(calls: list[Done], said: str) -> None:
    assert confirmation("en", calls) == said
    assert len(said) <= 60


@pytest.mark.parametrize(
    ("language", "said"),
    [
        (
            "de",
            [
                "Bedroom Lamp eingeschaltet.",
                "Küche: 3 Lichter ausgeschaltet.",
                "Rollo geöffnet.",
                "Bedroom Lamp auf 40 % gestellt.",
                "Thermostat auf 21,5 Grad gestellt.",
                "Timer auf 5 Minuten gestellt.",
                "Milch zu Einkauf hinzugefügt.",
                "Bedroom Lamp auf Rot gestellt.",
                "Humidifier auf 50 % gestellt.",
            ],
        ),
        (
            "de-AT",
            ["Bedroom Lamp eingeschaltet."],
        ),
        (
            "fr",
            [
                "J'ai allumé Bedroom Lamp.",
                "Küche : j'ai éteint 3 lumières.",
                "J'ai ouvert Rollo.",
                "J'ai réglé Bedroom Lamp sur 40 %.",
                "J'ai réglé Thermostat sur 21,5 degrés.",
                "Minuteur réglé sur 5 minutes.",
                "J'ai ajouté Milch à Einkauf.",
                "J'ai réglé Bedroom Lamp sur rouge.",
                "J'ai réglé Humidifier sur 50 %.",
            ],
        ),
        (
            "es_MX",
            [
                "He encendido Bedroom Lamp.",
                "Küche: he apagado 3 luces.",
                "He abierto Rollo.",
                "He ajustado Bedroom Lamp a 40 %.",
                "He ajustado Thermostat a 21,5 grados.",
                "Temporizador de 5 minutos iniciado.",
                "He añadido Milch a Einkauf.",
                "He ajustado Bedroom Lamp a rojo.",
                "He ajustado Humidifier a 50 %.",
            ],
        ),
        (
            "nl",
            [
                "Bedroom Lamp aangezet.",
                "Küche: 3 lampen uitgezet.",
                "Rollo geopend.",
                "Bedroom Lamp op 40 % gezet.",
                "Thermostat op 21,5 graden gezet.",
                "Timer van 5 minuten gestart.",
                "Milch aan Einkauf toegevoegd.",
                "Bedroom Lamp op rood gezet.",
                "Humidifier op 50 % gezet.",
            ],
        ),
    ],
)
def test_it_is_said_in_the_language_of_the_speaker(language: str, said: list[str]) -> None:
    calls = [
        on(LAMP),
        off(LAMP, CEILING, COUNTER, area="Küche"),
        on(("cover.x", "Rollo")),
        done("light__HassLightSet", LAMP, brightness=40),
        done("climate__HassClimateSetTemperature", ("climate.x", "Thermostat"), temperature=21.5),
        done("intent__HassStartTimer", minutes=5),
        done("todo__HassListAddItem", ("todo.x", "Einkauf"), item="Milch"),
        done("light__HassLightSet", LAMP, color="red"),
        done("humidifier__HassHumidifierSetpoint", name="Humidifier", humidity=50, speech="Set to 50%"),
    ]
    assert [confirmation(language, [call]) for call in calls[: len(said)]] == said


def test_french_elides() -> None:
    assert confirmation("fr", [done("media_player__HassMediaPlayerMute", ("media_player.e", "Enceinte"))]) == (
        "J'ai coupé le son d'Enceinte."
    )


def with_(call: Done, **changes: Any) -> Done:
    assert call.response
    return Done(call.tool, call.arguments, {**call.response, **changes})


@pytest.mark.parametrize(
    ("language", "calls"),
    [
        pytest.param("en", [], id="nothing"),
        pytest.param("pl", [on(LAMP)], id="another language"),
        pytest.param("", [on(LAMP)], id="no language"),
        pytest.param("en", [on()], id="no success"),
        pytest.param("en", [on(area="Kitchen")], id="a place alone"),
        pytest.param(
            "en",
            [with_(on(LAMP), data={"success": [{"name": "x", "type": "entity", "id": "light.x"}], "failed": [{}]})],
            id="a failure beside a success",
        ),
        pytest.param("en", [with_(on(LAMP), response_type="error", data={"code": "no_valid_targets"})], id="an error"),
        pytest.param("en", [with_(on(LAMP), response_type="query_answer")], id="an answer"),
        pytest.param("en", [Done("intent__HassTurnOn", {}, None)], id="no response"),
        pytest.param("en", [Done("script__x", {}, {"result": {"a": 1}})], id="a script, which may answer"),
        pytest.param("en", [Done("homeassistant__GetLiveContext", {}, {"result": "…"})], id="a question"),
        pytest.param("en", [done("intent__HassTimerStatus")], id="the status of timers"),
        pytest.param("en", [on(LAMP), done("intent__HassToggle", LAMP)], id="one that is not known"),
        pytest.param("en", [done("light__HassLightSet", LAMP)], id="set to nothing"),
        pytest.param("en", [done("intent__HassStartTimer")], id="a timer without time"),
        pytest.param("de", [done("light__HassLightSet", LAMP, color="papayawhip")], id="a colour without a word"),
    ],
)
def test_what_only_the_model_can_say_is_left_to_it(language: str, calls: list[Done]) -> None:
    assert confirmation(language, calls) is None


def test_every_language_has_every_sentence_with_the_same_blanks() -> None:
    english = LANGUAGES["en"]
    for language in LANGUAGES.values():
        assert {key: blanks(text) for key, text in language.said.items()} == {
            key: blanks(text) for key, text in english.said.items()
        }
        assert language.nouns.keys() == english.nouns.keys()
        assert language.times.keys() == english.times.keys()
        assert language.colors.keys() == english.colors.keys()


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_sentence_can_come_up() -> None:
    reached: set[str] = {"all", "up", "down", "named timer", "later"}
    for table in (confirm._ACTED, confirm._WROUGHT, confirm._SWITCHED_ON, confirm._SWITCHED_OFF):
        reached.update(table.values())
    assert reached == set(LANGUAGES["en"].said)


@pytest.mark.parametrize(
    ("tool", "arguments", "service", "said"),
    [
        ("intent__HassTurnOn", {"name": "Bedroom Lamp"}, ("homeassistant", "turn_on"), "Turned on the bedroom lamp."),
        ("intent__HassTurnOff", {"area": "Kitchen", "domain": ["light"]}, ("homeassistant", "turn_off"), None),
        ("intent__HassTurnOn", {"name": "Front Door"}, ("lock", "lock"), "Locked the front door."),
        (
            "climate__HassClimateSetTemperature",
            {"name": "Thermostat", "temperature": 20.0},
            ("climate", "set_temperature"),
            "Set the thermostat to 20 degrees.",
        ),
        ("intent__HassStartTimer", {"minutes": 3}, None, "Timer set for 3 minutes."),
        ("vacuum__HassVacuumStart", {"name": "Robby"}, ("vacuum", "start"), "Started Robby."),
    ],
)
async def test_what_home_assistant_answers_is_understood(
    assist: llm.APIInstance, tool: str, arguments: dict[str, Any], service: tuple[str, str] | None, said: str | None
) -> None:
    for each in (service, ("light", "turn_off")):
        if each:
            async_mock_service(assist.api.hass, *each)
    result = await assist.async_call_tool(llm.ToolInput(tool, arguments))
    response: Mapping[str, Any] = result.data
    expected = said or "Turned off Kitchen Ceiling and the counter light."
    assert confirmation("en", [Done(tool, arguments, response)]) == expected
