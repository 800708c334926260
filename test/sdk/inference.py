"""Answers that are not streamed, models, and what reaches the upstream."""

import base64
import json
import os
import struct

import openai

from harness import (ASK, BASE, KEY, TEST_KEY, async_client, check, client, fetch, forget, last, run, same, seen,
                     text_of, within)

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@check
def chat():
    r = client().chat.completions.create(model="up/ok", messages=ASK)
    same(r.choices[0].message.content, "Hello from the upstream", "content")
    same(r.choices[0].finish_reason, "stop", "finish_reason")
    same((r.usage.prompt_tokens, r.usage.completion_tokens, r.usage.total_tokens), (10, 4, 14), "usage")
    same(r.system_fingerprint, "fp_upstream", "a field the gateway does not know")
    assert r._request_id, "no request id"


@check
async def chat_async():
    async with async_client() as c:
        r = await c.chat.completions.create(model="up/ok", messages=ASK)
    same(r.choices[0].message.content, "Hello from the upstream", "content")


@check
def sandbox_with_test_key():
    c = client(TEST_KEY)
    r = c.chat.completions.create(model="sandbox/echo", messages=ASK)
    assert r.choices[0].message.content, "no content"
    within(r.usage.total_tokens, 2, 1000, "total_tokens")
    chunks = list(c.chat.completions.create(model="sandbox/echo", messages=ASK, stream=True))
    same(text_of(chunks), r.choices[0].message.content, "streamed text")


@check
def test_key_reaches_the_sandbox_only():
    """Whatever name a test key asks for, the sandbox answers: an application can be tried without being changed."""
    forget()
    c = client(TEST_KEY)
    for model in ("up/ok", "fast", "sandbox/echo"):
        raw = c.chat.completions.with_raw_response.create(model=model, messages=ASK)
        same(raw.headers.get("x-bulkhead-provider"), "sandbox", f"who answered {model}")
        same(raw.parse().choices[0].message.content, ASK[-1]["content"], f"answer of {model}")
    for model in ("none/ok", "none"):
        try:
            c.chat.completions.create(model=model, messages=ASK)
        except openai.NotFoundError as e:
            same(e.code, "model_not_found", "code")
        else:
            raise AssertionError(f"a test key was answered by {model}")
    same(seen(), [], "requests at the upstream")
    same({m.owned_by for m in c.models.list() if m.id != "fast"} - {"sandbox", "company"}, set(), "owners of listed models")


@check
def max_tokens_passes():
    r = client().chat.completions.create(model="up/ok", messages=ASK, max_completion_tokens=2)
    same((r.choices[0].message.content, r.choices[0].finish_reason), ("Hello from", "length"), "answer")


@check
def many_choices():
    r = client().chat.completions.create(model="up/ok", messages=ASK, n=3)
    same([c.index for c in r.choices], [0, 1, 2], "indexes")
    same(r.usage.completion_tokens, 12, "completion_tokens")


@check
def tools():
    c = client()
    r = c.chat.completions.create(model="up/tools", messages=ASK, tools=[WEATHER], tool_choice="auto")
    same(r.choices[0].finish_reason, "tool_calls", "finish_reason")
    call = r.choices[0].message.tool_calls[0]
    same((call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "Paris"}), "call")
    # The next turn: the call and its result go back.
    r = c.chat.completions.create(
        model="up/tools", tools=[WEATHER],
        messages=[*ASK, r.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}])
    same(r.choices[0].message.content, "Hello from the upstream", "content")


@check
def body_is_byte_identical():
    forget()
    c = client()
    c.chat.completions.create(
        model="up/ok", messages=[{"role": "user", "content": "é \u2028 \\ \" 中 😀"}], logprobs=True, top_logprobs=2,
        temperature=0.1, seed=12345678901234567890, tools=[WEATHER], logit_bias={"50256": -100},
        extra_body={"x_vendor": {"b": [1, 2.5e-7, None, True], "a": {"deep": [[{}]]}}, "prompt_cache_key": "k"})
    sent, got = c.record.sent.decode(), last("ok")["body"]
    same(sent.count('"up/ok"'), 1, "the model's name in what was sent")
    same(got, sent.replace('"up/ok"', '"ok"'), "body at the upstream")


@check
def strange_spelling_is_byte_identical():
    forget()
    # What no SDK writes and every proxy that decodes and encodes again spoils.
    body = '{ "z":1e3,\t"big":12345678901234567890.10, "model" : "up/ok" ,"esc":"\\u00e9\\/",\n"messages":[{"role":"user","content":"x"}] }'
    status, _, _ = fetch("POST", BASE + "/chat/completions", KEY, body.encode())
    same(status, 200, "status")
    same(last("ok")["body"], body.replace('"up/ok"', '"ok"'), "body at the upstream")


@check
def keys_stay_here():
    forget()
    c = client(organization="org-client", project="proj-client")
    try:
        c.chat.completions.create(model="up/ok", messages=ASK, extra_headers={"Cookie": "a=b"})
    except openai.APIStatusError:
        pass  # an organization that is not the key's may also be refused
    client().chat.completions.create(model="up/ok", messages=ASK, extra_headers={"Cookie": "a=b"})
    for request in seen():
        header = {k.lower(): v for k, v in request["header"].items()}
        same(header["authorization"], ["Bearer " + os.environ["UPSTREAM_SECRET"]], "authorization at the upstream")
        for name in ("cookie", "openai-organization", "openai-project"):
            assert name not in header, f"{name} reached the upstream"
        assert KEY not in json.dumps(request), "the gateway's key reached the upstream"


@check
def headers():
    raw = client().chat.completions.with_raw_response.create(model="up/ok", messages=ASK)
    h = raw.headers
    assert h["x-request-id"] and "upstream" not in h["x-request-id"], "the request id must be the gateway's own"
    same(raw.parse()._request_id, h["x-request-id"], "request id")
    within(int(h["openai-processing-ms"]), 0, 30_000, "openai-processing-ms")
    same((h["x-bulkhead-provider"], h["x-bulkhead-model"]), ("up", "ok"), "who answered")
    for name in ("set-cookie", "openai-organization"):
        assert name not in h, f"the upstream's {name} reached the client"
    assert h.get("x-ratelimit-remaining-requests") != "4999", "the upstream's rate limits reached the client"


@check
def fallback():
    forget()
    raw = client().chat.completions.with_raw_response.create(model="fast", messages=ASK)
    same(raw.parse().choices[0].message.content, "Hello from the upstream", "content")
    same(raw.headers["x-bulkhead-model"], "ok", "the model that answered")
    same([r["model"] for r in seen()], ["status-500", "ok"], "attempts")


@check
def fallback_before_a_stream():
    forget()
    chunks = list(client().chat.completions.create(model="flaky", messages=ASK, stream=True))
    same(text_of(chunks), "c0 c1 c2 ", "text")
    same([r["model"] for r in seen()], ["fail-once:route", "chunks-3"], "attempts")


@check
def embeddings_default_is_base64():
    c = client()
    r = c.embeddings.create(model="up/ok", input=["a", "b"])
    same(last("ok")["body"].count('"encoding_format":"base64"'), 1, "base64 asked of the upstream")
    assert isinstance(json.loads(c.record.body)["data"][0]["embedding"], str), "not base64 on the wire"
    same([d.embedding for d in r.data], vectors(2, 8), "vectors")
    same((r.usage.prompt_tokens, r.usage.total_tokens), (10, 10), "usage")


@check
def embeddings_float():
    r = client().embeddings.create(model="up/ok", input="a", encoding_format="float", dimensions=3)
    same([d.embedding for d in r.data], vectors(1, 3), "vectors")


@check
def embeddings_of_tokens():
    same(len(client().embeddings.create(model="up/ok", input=[[1, 2], [3]]).data), 2, "two lists of tokens")
    same(len(client().embeddings.create(model="up/ok", input=[1, 2, 3]).data), 1, "one list of tokens")


@check
def embeddings_of_an_upstream_that_ignores_base64():
    c = client()
    r = c.embeddings.create(model="up/float-embeddings", input=["a", "b", "c"])
    same([d.embedding for d in r.data], vectors(3, 8), "vectors")
    for i, d in enumerate(json.loads(c.record.body)["data"]):
        assert isinstance(d["embedding"], str), "numbers on the wire: the Node SDK would read nonsense"
        same(list(struct.unpack("<8f", base64.b64decode(d["embedding"]))), vectors(3, 8)[i], "base64")
    r = c.embeddings.create(model="up/float-embeddings", input="a", encoding_format="float")
    same(r.data[0].embedding, vectors(1, 8)[0], "float stays float")


def vectors(n, dimensions):
    """What the upstream answers."""
    return [[(i + d + 1) / 16 for d in range(dimensions)] for i in range(n)]


@check
def moderations():
    r = client().moderations.create(model="up/ok", input=["a", "b"])
    same([x.flagged for x in r.results], [False, False], "flagged")


@check
def legacy_completions():
    c = client()
    r = c.completions.create(model="up/ok", prompt="Say hello")
    same((r.choices[0].text, r.usage.total_tokens), ("Hello from the upstream", 14), "answer")
    parts = list(c.completions.create(model="up/ok", prompt="Say hello", stream=True))
    same("".join(p.choices[0].text for p in parts), "Hello from the upstream", "streamed text")
    assert all(p.usage is None for p in parts), "usage that nobody asked for"


@check
def models():
    c = client()
    listed = {m.id: m for m in c.models.list()}
    for id in ("fast", "sandbox/echo"):
        assert id in listed, f"{id} is not in {sorted(listed)}"
    for id in ("fast", "sandbox/echo"):
        m = c.models.retrieve(id)
        same((m.id, m.object), (id, "model"), "model")
        assert type(m.created) is int and isinstance(m.owned_by, str), m
    assert not any(m.startswith("openai/") for m in listed), "models without a credential are listed"


run()
