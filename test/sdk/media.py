"""Images and sound, by the SDK for Python."""

import base64
import io

import openai

from harness import CANARY, KEY, TEST_KEY, check, client, last, run, same, within

PICTURE = b"what might be a picture"
FIFTY_MB = bytes(range(256)) * (50 * 4096)


@check
def image():
    r = client().images.generate(model="up/gpt-image-1", prompt="a cat " + CANARY, n=2)
    same(len(r.data), 2, "images")
    same(base64.b64decode(r.data[0].b64_json), b"picture", "image")
    same((r.usage.input_tokens, r.usage.output_tokens), (10, 200), "usage")


@check
def image_stream():
    events = list(client().images.generate(model="up/gpt-image-1", prompt="a cat", stream=True, partial_images=1))
    same([e.type for e in events], ["image_generation.partial_image", "image_generation.completed"], "events")
    same(events[1].usage.output_tokens, 100, "usage")


@check
def image_edit():
    r = client().images.edit(model="up/gpt-image-1", prompt="a dog", image=[io.BytesIO(PICTURE), io.BytesIO(PICTURE)], mask=io.BytesIO(PICTURE))
    same(len(r.data), 1, "images")
    sent = last("gpt-image-1")["body"].encode()
    same(sent.count(PICTURE), 3, "files that reached the upstream")


@check
def image_variation():
    same(len(client().images.create_variation(model="up/dall-e-2", image=PICTURE, n=3).data), 3, "images")


@check
def speech():
    r = client().audio.speech.create(model="up/tts-1", input="Hello", voice="alloy")
    same(r.content, bytes(i * 7 % 256 for i in range(100_000)), "sound")
    same(r.response.headers["content-type"], "audio/mpeg", "type")


@check
def speech_streamed():
    n = 0
    with client().audio.speech.with_streaming_response.create(model="up/tts-1", input="Hello", voice="alloy") as r:
        for piece in r.iter_bytes():
            n += len(piece)
    same(n, 100_000, "bytes of sound")


@check
def transcription_of_50_mb():
    r = client().audio.transcriptions.create(model="up/whisper-1", file=("talk.mp3", FIFTY_MB), language="en", timeout=300)
    same(r.text, f"{len(FIFTY_MB)} bytes", "text")
    same(r.usage.seconds, 3, "usage")


@check
def transcription_stream():
    events = list(client().audio.transcriptions.create(model="up/gpt-4o-transcribe", file=b"sound", stream=True))
    same([e.type for e in events], ["transcript.text.delta", "transcript.text.done"], "events")
    same(events[1].text, "5 bytes", "text")


@check
def transcription_as_subtitles():
    r = client().audio.transcriptions.create(model="up/whisper-1", file=b"sound", response_format="srt")
    same(r, "1\n00:00:00,000 --> 00:00:03,000\n5 bytes\n", "subtitles")


@check
def translation():
    same(client().audio.translations.create(model="up/whisper-1", file=b"sound").text, "5 bytes", "text")


@check
def sandbox():
    c = client(TEST_KEY)
    image = base64.b64decode(c.images.generate(model="gpt-image-1", prompt="a cat").data[0].b64_json)
    same(image[:4], b"\x89PNG", "image")
    sound = c.audio.speech.create(model="tts-1", input="Hello", voice="alloy").content
    same(sound[:4], b"RIFF", "sound")
    heard = c.audio.transcriptions.create(model="whisper-1", file=("a.wav", sound))
    same(heard.text, f"The sandbox heard a file of {len(sound)} bytes.", "text")
    within(heard.usage.input_tokens, 1, 100, "usage")


@check
def errors():
    for call, param in [
        (lambda c: c.images.generate(model="up/gpt-image-1", prompt="x", n=99), "n"),
        (lambda c: c.audio.transcriptions.create(model="up/whisper-1", file=b""), "file"),
        (lambda c: c.audio.speech.create(model="none", input="x", voice="alloy"), "model"),
    ]:
        try:
            call(client(KEY))
        except (openai.BadRequestError, openai.NotFoundError) as e:
            same(e.param, param, "param")
        else:
            raise AssertionError(f"no error about {param}")


run()
