"""A real voice pipeline: it has the prefix read while somebody speaks, and begins to speak before the answer ends."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path
from typing import Any

import pytest
from homeassistant.components import assist_pipeline, stt, tts
from homeassistant.components.assist_pipeline.pipeline import async_create_default_pipeline, async_update_pipeline
from homeassistant.config_entries import ConfigFlow
from homeassistant.core import Context, HomeAssistant
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    MockModule,
    MockPlatform,
    mock_config_flow,
    mock_integration,
    mock_platform,
)

from tests.component.home import AGENT, furnish, set_up
from tests.component.node import Node, accepted, act, chunk, final, tool_call

LONG = ("Once upon a time there was a lighthouse keeper ", "who never once ", "saw the sea. He did not mind.")
METADATA = stt.SpeechMetadata(
    language="en",
    format=stt.AudioFormats.WAV,
    codec=stt.AudioCodecs.PCM,
    bit_rate=stt.AudioBitRates.BITRATE_16,
    sample_rate=stt.AudioSampleRates.SAMPLERATE_16000,
    channel=stt.AudioChannels.CHANNEL_MONO,
)


class Ears(stt.SpeechToTextEntity):
    """Hears a sentence once the audio ends."""

    _attr_name = "Ears"
    supported_languages = ["en"]
    supported_formats = [stt.AudioFormats.WAV]
    supported_codecs = [stt.AudioCodecs.PCM]
    supported_bit_rates = [stt.AudioBitRates.BITRATE_16]
    supported_sample_rates = [stt.AudioSampleRates.SAMPLERATE_16000]
    supported_channels = [stt.AudioChannels.CHANNEL_MONO]

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence

    async def async_process_audio_stream(
        self, metadata: stt.SpeechMetadata, stream: AsyncIterable[bytes]
    ) -> stt.SpeechResult:
        async for _ in stream:
            pass
        return stt.SpeechResult(self._sentence, stt.SpeechResultState.SUCCESS)


class Voice(tts.TextToSpeechEntity):
    """Speaks while the text is still being written; `said` are the pieces it was given."""

    _attr_name = "Voice"
    _attr_default_language = "en"
    _attr_supported_languages = ["en"]

    def __init__(self) -> None:
        self.said: list[str] = []
        self.speaks = asyncio.Event()

    async def async_stream_tts_audio(self, request: tts.TTSAudioRequest) -> tts.TTSAudioResponse:
        async def audio() -> AsyncGenerator[bytes]:
            async for piece in request.message_gen:
                self.said.append(piece)
                self.speaks.set()
                yield piece.encode()

        return tts.TTSAudioResponse("mp3", audio())

    def get_tts_audio(self, message: str, language: str, options: dict[str, Any]) -> tts.TtsAudioType:
        self.said.append(message)
        return "mp3", message.encode()


class Assistant:
    """A pipeline with ears and a voice; `events` is what its satellite is told."""

    def __init__(self, hass: HomeAssistant, voice: Voice) -> None:
        self.hass = hass
        self.voice = voice
        self.events: list[assist_pipeline.PipelineEvent] = []
        self.listening = asyncio.Event()
        self.silence = asyncio.Event()

    async def run(self) -> None:
        async def audio() -> AsyncGenerator[bytes]:
            self.listening.set()
            yield b"\0" * 320
            await self.silence.wait()

        await assist_pipeline.async_pipeline_from_audio_stream(
            self.hass,
            context=Context(),
            event_callback=self._told,
            stt_metadata=METADATA,
            stt_stream=audio(),
            audio_settings=assist_pipeline.AudioSettings(is_vad_enabled=False),
        )

    def _told(self, event: assist_pipeline.PipelineEvent) -> None:
        self.events.append(event)
        # A satellite fetches the speech as soon as it hears that it begins.
        if event.type is assist_pipeline.PipelineEventType.RUN_START:
            token = event.data["tts_output"]["token"]
            self.stream = tts.async_get_stream(self.hass, token)
        if (event.data or {}).get("tts_start_streaming"):
            self.hass.async_create_background_task(self._fetch(), "satellite")

    async def _fetch(self) -> None:
        async for _ in self.stream.async_stream_result():
            pass


@pytest.fixture
def speech_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tts, "_init_tts_cache_dir", lambda *_: str(tmp_path), raising=False)


@pytest.fixture
async def assistant(
    hass: HomeAssistant, node: Node, speech_cache: None, monkeypatch: pytest.MonkeyPatch, socket_enabled: None
) -> AsyncGenerator[Assistant]:
    await furnish(hass)
    node.online()
    await set_up(hass)
    voice = Voice()

    async def forward(hass: HomeAssistant, entry: MockConfigEntry) -> bool:
        await hass.config_entries.async_forward_entry_setups(entry, ["stt", "tts"])
        return True

    mock_integration(hass, MockModule("speech", async_setup_entry=forward))
    mock_platform(hass, "speech.config_flow")
    for domain, entity in (("stt", Ears("Tell me a story")), ("tts", voice)):

        async def add(hass, entry, async_add_entities, entity=entity) -> None:
            async_add_entities([entity])

        mock_platform(hass, f"speech.{domain}", MockPlatform(async_setup_entry=add))
    entry = MockConfigEntry(domain="speech")
    entry.add_to_hass(hass)
    with mock_config_flow("speech", ConfigFlow):
        assert await hass.config_entries.async_setup(entry.entry_id)
    assert await async_setup_component(hass, "assist_pipeline", {})
    await hass.async_block_till_done()
    pipeline = await async_create_default_pipeline(hass, "stt.ears", "tts.voice", "Test")
    await async_update_pipeline(hass, pipeline, conversation_engine=AGENT)
    assist_pipeline.async_get_pipelines(hass)
    hass.data["assist_pipeline"].pipeline_store.async_set_preferred_item(pipeline.id)
    node.requests.clear()
    return Assistant(hass, voice)


def ops(node: Node) -> list[str]:
    return [request.op for request in node.requests]


async def test_the_prefix_is_read_while_somebody_still_speaks(assistant: Assistant, node: Node) -> None:
    prepared = asyncio.Event()

    def answer(request):
        if request.op == "prepare":
            prepared.set()
            return [final()]
        return [accepted(), chunk(content="Yes."), final("Yes.")]

    node.on(answer)
    run = asyncio.create_task(assistant.run())
    await prepared.wait()
    assert ops(node) == ["prepare"]
    assistant.silence.set()
    await run
    assert ops(node) == ["prepare", "chat"]


async def test_speech_begins_after_sixty_characters(assistant: Assistant, node: Node) -> None:
    async def slowly():
        yield accepted()
        for words in LONG[:2]:
            yield chunk(content=words)
        await assistant.voice.speaks.wait()  # The rest is written only when the beginning is being spoken.
        yield chunk(content=LONG[2])
        yield final("".join(LONG))

    node.on(lambda request: slowly() if request.op == "chat" else [final()])
    assistant.silence.set()
    await assistant.run()
    await assistant.hass.async_block_till_done(wait_background_tasks=True)
    assert "".join(assistant.voice.said) == "".join(LONG)


async def test_speech_begins_when_words_are_followed_by_a_call(assistant: Assistant, node: Node) -> None:
    call = tool_call("intent__HassTurnOn", {"name": "Ceiling lamp"})
    node.say([accepted(), chunk(content="Right away."), *act(call)[1:-1], final("Right away.", calls=[call])])
    assistant.silence.set()
    await assistant.run()
    await assistant.hass.async_block_till_done(wait_background_tasks=True)
    assert assistant.hass.states.get("light.ceiling_lamp").state == "on"
    assert "".join(assistant.voice.said).split() == ["Right", "away.", "Turned", "on", "the", "ceiling", "lamp."]
