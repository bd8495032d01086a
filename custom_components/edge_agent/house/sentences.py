"""What is said after something was done, in the languages the component speaks. Data.

None of these sentences needs the gender or the number of what it speaks of: nobody told us.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Language:
    """One language: sentences by what was done, nouns by domain, and the small words between them."""

    said: Mapping[str, str]
    nouns: Mapping[str, str]
    """Plurals: they follow a number."""
    place: str
    """How several things in one place are told: around what was acted on, or around the sentence."""
    both: str
    degrees: str
    times: Mapping[str, tuple[str, str]]
    colors: Mapping[str, str]


_COLORS: Final = ["red", "green", "blue", "yellow", "orange", "purple", "pink", "white"]
_TIMES: Final = ("hours", "minutes", "seconds")


def _nouns(text: str) -> Mapping[str, str]:
    kinds = ("light", "switch", "cover", "fan", "lock", "media_player", "climate", "valve", "")
    return dict(zip(kinds, text.split(), strict=True))


def _colors(text: str) -> Mapping[str, str]:
    return dict(zip(_COLORS, text.split(), strict=True))


def _times(*pairs: str) -> Mapping[str, tuple[str, str]]:
    return {unit: (one, many) for unit, pair in zip(_TIMES, pairs, strict=True) for one, many in [pair.split()]}


_ENGLISH: Final = Language(
    said={
        "on": "Turned on {what}.",
        "off": "Turned off {what}.",
        "open": "Opened {what}.",
        "close": "Closed {what}.",
        "lock": "Locked {what}.",
        "unlock": "Unlocked {what}.",
        "activate": "Activated {what}.",
        "start": "Started {what}.",
        "press": "Pressed {what}.",
        "stop": "Stopped {what}.",
        "set": "Set {what} to {value}.",
        "dock": "Sent {what} back to base.",
        "clean": "Started cleaning {value}.",
        "pause": "Paused {what}.",
        "resume": "Resumed {what}.",
        "next": "Skipped to the next track.",
        "previous": "Back to the previous track.",
        "mute": "Muted {what}.",
        "unmute": "Unmuted {what}.",
        "up": "Turned up {what}.",
        "down": "Turned down {what}.",
        "volume": "Set the volume of {what} to {value}.",
        "timer": "Timer set for {value}.",
        "named timer": "{name} timer set for {value}.",
        "later": "I will do that in {value}.",
        "cancel timer": "Timer cancelled.",
        "cancel timers": "All timers cancelled.",
        "more time": "Added {value} to the timer.",
        "less time": "Took {value} off the timer.",
        "pause timer": "Timer paused.",
        "resume timer": "Timer resumed.",
        "add": "Added {item} to {what}.",
        "complete": "Checked off {item}.",
        "remove": "Removed {item} from {what}.",
        "announce": "Announced.",
        "all": "All done.",
    },
    nouns=_nouns("lights switches blinds fans locks players thermostats valves devices"),
    place="{what} in {place}",
    both="{one} and {other}",
    degrees="{number} degrees",
    times=_times("hour hours", "minute minutes", "second seconds"),
    colors=_colors("red green blue yellow orange purple pink white"),
)
_GERMAN: Final = Language(
    said={
        "on": "{what} eingeschaltet.",
        "off": "{what} ausgeschaltet.",
        "open": "{what} geöffnet.",
        "close": "{what} geschlossen.",
        "lock": "{what} verriegelt.",
        "unlock": "{what} entriegelt.",
        "activate": "{what} aktiviert.",
        "start": "{what} gestartet.",
        "press": "{what} gedrückt.",
        "stop": "{what} angehalten.",
        "set": "{what} auf {value} gestellt.",
        "dock": "{what} zurückgeschickt.",
        "clean": "Reinigung gestartet: {value}.",
        "pause": "{what} pausiert.",
        "resume": "{what} fortgesetzt.",
        "next": "Nächster Titel.",
        "previous": "Vorheriger Titel.",
        "mute": "{what} stummgeschaltet.",
        "unmute": "Ton von {what} wieder an.",
        "up": "{what} lauter gestellt.",
        "down": "{what} leiser gestellt.",
        "volume": "Lautstärke von {what} auf {value} gestellt.",
        "timer": "Timer auf {value} gestellt.",
        "named timer": "Timer {name} auf {value} gestellt.",
        "later": "Das mache ich in {value}.",
        "cancel timer": "Timer abgebrochen.",
        "cancel timers": "Alle Timer abgebrochen.",
        "more time": "Timer um {value} verlängert.",
        "less time": "Timer um {value} verkürzt.",
        "pause timer": "Timer angehalten.",
        "resume timer": "Timer läuft weiter.",
        "add": "{item} zu {what} hinzugefügt.",
        "complete": "{item} abgehakt.",
        "remove": "{item} von {what} entfernt.",
        "announce": "Durchgesagt.",
        "all": "Alles erledigt.",
    },
    nouns=_nouns("Lichter Schalter Rollläden Ventilatoren Schlösser Player Thermostate Ventile Geräte"),
    place="{place}: {sentence}",
    both="{one} und {other}",
    degrees="{number} Grad",
    times=_times("Stunde Stunden", "Minute Minuten", "Sekunde Sekunden"),
    colors=_colors("Rot Grün Blau Gelb Orange Lila Rosa Weiß"),
)
_FRENCH: Final = Language(
    said={
        "on": "J'ai allumé {what}.",
        "off": "J'ai éteint {what}.",
        "open": "J'ai ouvert {what}.",
        "close": "J'ai fermé {what}.",
        "lock": "J'ai verrouillé {what}.",
        "unlock": "J'ai déverrouillé {what}.",
        "activate": "J'ai activé {what}.",
        "start": "J'ai lancé {what}.",
        "press": "J'ai appuyé sur {what}.",
        "stop": "J'ai arrêté {what}.",
        "set": "J'ai réglé {what} sur {value}.",
        "dock": "J'ai renvoyé {what} à sa base.",
        "clean": "Nettoyage lancé : {value}.",
        "pause": "J'ai mis {what} en pause.",
        "resume": "J'ai relancé {what}.",
        "next": "Piste suivante.",
        "previous": "Piste précédente.",
        "mute": "J'ai coupé le son de {what}.",
        "unmute": "J'ai remis le son de {what}.",
        "up": "J'ai augmenté le son de {what}.",
        "down": "J'ai baissé le son de {what}.",
        "volume": "J'ai réglé le volume de {what} sur {value}.",
        "timer": "Minuteur réglé sur {value}.",
        "named timer": "Minuteur {name} réglé sur {value}.",
        "later": "Je le ferai dans {value}.",
        "cancel timer": "Minuteur annulé.",
        "cancel timers": "Tous les minuteurs sont annulés.",
        "more time": "J'ai ajouté {value} au minuteur.",
        "less time": "J'ai retiré {value} du minuteur.",
        "pause timer": "Minuteur en pause.",
        "resume timer": "Minuteur relancé.",
        "add": "J'ai ajouté {item} à {what}.",
        "complete": "J'ai coché {item}.",
        "remove": "J'ai retiré {item} de {what}.",
        "announce": "C'est annoncé.",
        "all": "C'est fait.",
    },
    nouns=_nouns("lumières interrupteurs volets ventilateurs serrures lecteurs thermostats vannes appareils"),
    place="{place} : {sentence}",
    both="{one} et {other}",
    degrees="{number} degrés",
    times=_times("heure heures", "minute minutes", "seconde secondes"),
    colors=_colors("rouge vert bleu jaune orange violet rose blanc"),
)
_SPANISH: Final = Language(
    said={
        "on": "He encendido {what}.",
        "off": "He apagado {what}.",
        "open": "He abierto {what}.",
        "close": "He cerrado {what}.",
        "lock": "He bloqueado {what}.",
        "unlock": "He desbloqueado {what}.",
        "activate": "He activado {what}.",
        "start": "He iniciado {what}.",
        "press": "He pulsado {what}.",
        "stop": "He detenido {what}.",
        "set": "He ajustado {what} a {value}.",
        "dock": "He enviado {what} a su base.",
        "clean": "Limpieza en marcha: {value}.",
        "pause": "He pausado {what}.",
        "resume": "He reanudado {what}.",
        "next": "Pista siguiente.",
        "previous": "Pista anterior.",
        "mute": "He silenciado {what}.",
        "unmute": "He reactivado el sonido de {what}.",
        "up": "He subido el volumen de {what}.",
        "down": "He bajado el volumen de {what}.",
        "volume": "He ajustado el volumen de {what} a {value}.",
        "timer": "Temporizador de {value} iniciado.",
        "named timer": "Temporizador {name} de {value} iniciado.",
        "later": "Lo haré en {value}.",
        "cancel timer": "Temporizador cancelado.",
        "cancel timers": "Todos los temporizadores cancelados.",
        "more time": "He añadido {value} al temporizador.",
        "less time": "He quitado {value} al temporizador.",
        "pause timer": "Temporizador en pausa.",
        "resume timer": "Temporizador reanudado.",
        "add": "He añadido {item} a {what}.",
        "complete": "He marcado {item} como hecho.",
        "remove": "He quitado {item} de {what}.",
        "announce": "Anunciado.",
        "all": "Hecho.",
    },
    nouns=_nouns(
        "luces interruptores persianas ventiladores cerraduras reproductores termostatos válvulas dispositivos"
    ),
    place="{place}: {sentence}",
    both="{one} y {other}",
    degrees="{number} grados",
    times=_times("hora horas", "minuto minutos", "segundo segundos"),
    colors=_colors("rojo verde azul amarillo naranja morado rosa blanco"),
)
_DUTCH: Final = Language(
    said={
        "on": "{what} aangezet.",
        "off": "{what} uitgezet.",
        "open": "{what} geopend.",
        "close": "{what} gesloten.",
        "lock": "{what} vergrendeld.",
        "unlock": "{what} ontgrendeld.",
        "activate": "{what} geactiveerd.",
        "start": "{what} gestart.",
        "press": "{what} ingedrukt.",
        "stop": "{what} gestopt.",
        "set": "{what} op {value} gezet.",
        "dock": "{what} teruggestuurd.",
        "clean": "Schoonmaak gestart: {value}.",
        "pause": "{what} gepauzeerd.",
        "resume": "{what} hervat.",
        "next": "Volgende nummer.",
        "previous": "Vorige nummer.",
        "mute": "{what} gedempt.",
        "unmute": "Geluid van {what} weer aan.",
        "up": "{what} harder gezet.",
        "down": "{what} zachter gezet.",
        "volume": "Volume van {what} op {value} gezet.",
        "timer": "Timer van {value} gestart.",
        "named timer": "Timer {name} van {value} gestart.",
        "later": "Dat doe ik over {value}.",
        "cancel timer": "Timer geannuleerd.",
        "cancel timers": "Alle timers geannuleerd.",
        "more time": "{value} bij de timer opgeteld.",
        "less time": "{value} van de timer afgehaald.",
        "pause timer": "Timer gepauzeerd.",
        "resume timer": "Timer hervat.",
        "add": "{item} aan {what} toegevoegd.",
        "complete": "{item} afgevinkt.",
        "remove": "{item} van {what} verwijderd.",
        "announce": "Omgeroepen.",
        "all": "Alles gedaan.",
    },
    nouns=_nouns("lampen schakelaars rolluiken ventilatoren sloten spelers thermostaten kleppen apparaten"),
    place="{place}: {sentence}",
    both="{one} en {other}",
    degrees="{number} graden",
    times=_times("uur uur", "minuut minuten", "seconde seconden"),
    colors=_colors("rood groen blauw geel oranje paars roze wit"),
)
LANGUAGES: Final[Mapping[str, Language]] = {
    "en": _ENGLISH,
    "de": _GERMAN,
    "fr": _FRENCH,
    "es": _SPANISH,
    "nl": _DUTCH,
}
