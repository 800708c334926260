"""Streamed answers, whole, broken, and left by the client."""

import asyncio
import time

import openai

from harness import (ASK, async_client, check, client, closed_upstream, eventually, forget, last, raises, run, same,
                     seen, text_of)
WEATHER = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


def stream(model, **more):
    return client().chat.completions.create(model=model, messages=ASK, stream=True, **more)


@check
def text():
    chunks = list(stream("up/ok"))
    same(text_of(chunks), "Hello from the upstream", "text")
    same(chunks[-1].choices[0].finish_reason, "stop", "finish_reason")
    same(len({c.id for c in chunks}), 1, "number of ids")


@check
async def text_async():
    async with async_client() as c:
        got = await c.chat.completions.create(model="up/chunks-50", messages=ASK, stream=True)
        same(text_of([x async for x in got]), "".join(f"c{i} " for i in range(50)), "text")


@check
def usage_not_asked_for_is_hidden():
    for model in ("up/ok", "up/usage-every-chunk", "up/usage-with-finish"):
        for more in ({}, {"stream_options": {"include_usage": False}}):
            for c in stream(model, **more):
                assert c.choices, f"{model}: a chunk without choices"
                assert "usage" not in c.model_fields_set, f"{model}: usage that nobody asked for: {c.usage}"
    assert '"include_usage":true' in last("ok")["body"].replace(" ", ""), "usage was not asked of the upstream"


@check
def usage_asked_for():
    for model in ("up/ok", "up/usage-every-chunk"):
        chunks = list(stream(model, stream_options={"include_usage": True}))
        same((chunks[-1].choices, chunks[-1].usage.total_tokens), ([], 14), f"{model}: last chunk")
        assert all(c.choices and c.usage is None for c in chunks[:-1]), f"{model}: usage before the end"


@check
def client_bytes_are_kept():
    forget()
    c = client()
    list(c.chat.completions.create(model="up/ok", messages=ASK, stream=True, extra_body={"x": [1.50, "\u00e9"]},
                                   stream_options={"include_obfuscation": False}))
    sent, got = c.record.sent.decode(), last("ok")["body"]
    # The gateway asks for usage itself. Nothing else may differ, and the model's name.
    added = [got.replace(x, "", 1) for x in (',"include_usage":true', '"include_usage":true,') if x in got]
    assert added, f"usage was not asked of the upstream: {got}"
    same(added[0], sent.replace('"up/ok"', '"ok"'), "body at the upstream but for include_usage")


@check
def tools():
    args, name = "", ""
    for c in stream("up/tools", tools=WEATHER):
        for call in c.choices[0].delta.tool_calls or []:
            same(call.index, 0, "index")
            name += call.function.name or ""
            args += call.function.arguments or ""
        finish = c.choices[0].finish_reason
    same((name, args, finish), ("weather", '{"city":"Paris"}', "tool_calls"), "call")


@check
def many_choices():
    texts = {}
    for c in stream("up/ok", n=2):
        for choice in c.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    same(texts, {0: "Hello from the upstream", 1: "Hello from the upstream"}, "texts")


@check
def helper_of_the_sdk():
    with client().chat.completions.stream(model="up/ok", messages=ASK) as s:
        for _ in s:
            pass
        same(s.get_final_completion().choices[0].message.content, "Hello from the upstream", "content")


@check
def odd_upstreams():
    for model, want in (("up/comments", "Hello from the upstream"), ("up/crlf", "Hello from the upstream"),
                        ("up/drip", "Hello from the upstream"), ("up/no-usage", "Hello from the upstream"),
                        ("up/empty-choices-first", "Hello from the upstream"), ("up/huge-line", "x" * (2 << 20))):
        got = text_of(stream(model))
        assert got == want, f"{model}: {len(got)} characters, want {len(want)}: {got[:60]!r}"


@check
def first_event_is_not_held_back():
    s = stream("up/silent")
    start = time.monotonic()
    for c in s:
        if c.choices and c.choices[0].delta.content:
            break
    assert time.monotonic() - start < 1, "the first event took more than 1 s"
    s.close()
    closed_upstream("silent")


@check
def error_in_the_middle():
    got = []
    with raises(openai.APIError) as box:
        for c in stream("up/error-mid"):
            got.append(c)
    same(text_of(got), "Hello from", "text before the error")
    assert box.error.message, "no message"


@check
def cut_streams_raise():
    for model in ("up/cut", "up/cut-clean"):
        got = []
        try:
            for c in stream(model):
                got.append(c)
        except (openai.APIError, openai.OpenAIError) as e:
            assert not isinstance(e, openai.APIStatusError), e
        except Exception as e:  # the HTTP library's own error is as good: the client was told
            assert "httpx" in type(e).__module__ or "httpcore" in type(e).__module__, repr(e)
        else:
            raise AssertionError(f"{model} looks like a whole answer")
        same(text_of(got), "Hello from", f"{model}: text before the cut")


@check
def garbage_raises():
    with raises(openai.InternalServerError, code=lambda c: c is None or isinstance(c, str)):
        list(stream("up/garbage"))
    try:
        list(stream("up/garbage-json"))
    except (openai.APIError, ValueError):
        pass
    else:
        raise AssertionError("broken JSON looks like a whole answer")


@check
def leaving_mid_stream_closes_the_upstream():
    forget()
    s = stream("up/never-ending")
    for n, _ in enumerate(s):
        if n == 3:
            break
    s.close()
    closed_upstream("never-ending")


@check
async def leaving_mid_stream_async():
    forget()
    async with async_client() as c:
        s = await c.chat.completions.create(model="up/never-ending", messages=ASK, stream=True)
        async for _ in s:
            break
        await s.close()
    closed_upstream("never-ending")


@check
async def cancelled_while_waiting_for_the_head():
    forget()
    async with async_client() as c:
        task = asyncio.create_task(c.chat.completions.create(model="up/slow-header", messages=ASK, stream=True))
        while not await asyncio.to_thread(seen, "slow-header"):
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.to_thread(closed_upstream, "slow-header")


@check
def timeouts_close_the_upstream():
    forget()
    with raises(openai.APITimeoutError):
        client(timeout=0.3).chat.completions.create(model="up/slow-header", messages=ASK)
    closed_upstream("slow-header")


@check
def nothing_stays_open():
    eventually(2, "the upstream has no open request", lambda: all(r["ended"] for r in seen()))


run()
