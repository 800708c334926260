"""Responses, by the SDK for Python: passed through to the upstream, whose answers are kept there."""

import openai

from harness import CANARY, TEST_KEY, check, client, last, run, same

PROMPT = "Say hello. " + CANARY
HELLO = "Hello from the upstream"
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


def refused(status, code, f):
    try:
        f()
    except openai.APIStatusError as e:
        same((e.status_code, e.code), (status, code), "refusal")
        return e
    raise AssertionError("it was not refused")


@check
def text():
    r = client().responses.create(model="up/ok", input=PROMPT, instructions="Be brief.", max_output_tokens=100, metadata={"a": "b"})
    same((r.output_text, r.status, r.usage.input_tokens, r.usage.output_tokens), (HELLO, "completed", 10, 4), "response")
    sent = last("ok")
    same(sent["path"], "/v1/responses", "path")
    assert '"max_output_tokens":100' in sent["body"].replace(" ", ""), sent["body"]


@check
def raw():
    r = client().responses.with_raw_response.create(model="up/ok", input=PROMPT)
    same(r.headers["x-bulkhead-provider"], "up", "provider")
    same(r.parse().output_text, HELLO, "text")


@check
def stream():
    events = list(client().responses.create(model="up/ok", input=[{"role": "user", "content": PROMPT}], stream=True))
    same(events[0].type, "response.created", "first event")
    same("".join(e.delta for e in events if e.type == "response.output_text.delta"), HELLO, "text")
    same((events[-1].type, events[-1].response.usage.total_tokens), ("response.completed", 14), "last event")


@check
def stream_helper():
    with client().responses.stream(model="up/ok", input=PROMPT) as s:
        for _ in s:
            pass
        same(s.get_final_response().output_text, HELLO, "text")


@check
def incomplete():
    events = list(client().responses.create(model="up/ok", input=PROMPT, max_output_tokens=16, stream=True))
    same(events[-1].response.status, "completed", "status")
    r = client().responses.create(model="up/chunks-50", input=PROMPT, max_output_tokens=20)
    same((r.status, r.incomplete_details.reason), ("incomplete", "max_output_tokens"), "status")


@check
def tools():
    r = client().responses.create(model="up/tools", input=PROMPT, tools=[WEATHER])
    call = r.output[0]
    same((call.type, call.name, call.arguments), ("function_call", "weather", '{"city":"Paris"}'), "call")
    again = client().responses.create(
        model="up/ok", previous_response_id=r.id, input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}])
    same(again.usage.input_tokens, 10 + 10 + 6, "input with what was said before")


@check
def kept():
    r = client().responses.create(model="up/ok", input=PROMPT)
    got = client().responses.retrieve(r.id, include=["reasoning.encrypted_content"])
    same((got.id, got.output_text), (r.id, HELLO), "what is kept")
    same(len(client().responses.input_items.list(r.id, limit=5, order="asc").data), 1, "items")
    same(client().responses.cancel(r.id).status, "cancelled", "status")
    client().responses.delete(r.id)
    refused(404, "not_found", lambda: client().responses.retrieve(r.id))
    refused(404, "previous_response_not_found", lambda: client().responses.create(model="up/ok", input=PROMPT, previous_response_id=r.id))


@check
def not_kept():
    r = client().responses.create(model="up/ok", input=PROMPT, store=False)
    refused(404, "not_found", lambda: client().responses.retrieve(r.id))


@check
def refusals():
    refused(404, "previous_response_not_found", lambda: client().responses.create(model="up/ok", input=PROMPT, previous_response_id="resp_ffffffff"))
    refused(404, "not_found", lambda: client().responses.retrieve("resp_ffffffff"))
    e = refused(400, "field_not_supported", lambda: client().responses.create(model="up/ok", input=PROMPT, background=True))
    same(e.param, "background", "field")
    refused(400, "field_not_supported", lambda: client().responses.create(model="up/ok", input=PROMPT, conversation="conv_1"))
    refused(400, "model_not_supported", lambda: client(TEST_KEY).responses.create(model="up/ok", input=PROMPT))


@check
def broken_stream():
    for model in ["up/cut", "up/cut-clean", "up/error-mid"]:
        text = ""
        try:
            for e in client().responses.create(model=model, input=PROMPT, stream=True):
                text += e.delta if e.type == "response.output_text.delta" else ""
        except openai.APIError as e:
            same(text, "Hello from", "text so far")
            assert e.message, e
        else:
            raise AssertionError(model + " ended well")


run()
