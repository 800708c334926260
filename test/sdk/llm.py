"""A real small language model, through the gateway."""

from harness import CANARY, check, client, run, same, within

MODEL = "llm/smollm2-135m"
ASK = [{"role": "user", "content": f"What is the capital of France? ({CANARY})"}]


@check
def answers():
    raw = client(timeout=60).chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, max_tokens=24, temperature=0)
    r = raw.parse()
    assert r.choices[0].message.content.strip(), "empty answer"
    within(r.usage.prompt_tokens, 5, 200, "prompt_tokens")
    within(r.usage.completion_tokens, 1, 24, "completion_tokens")
    same(r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens, "total_tokens")
    same((raw.headers["x-bulkhead-provider"], raw.headers["x-bulkhead-model"]), ("llm", "smollm2-135m"), "who answered")


@check
def streams():
    chunks = list(client(timeout=60).chat.completions.create(
        model=MODEL, messages=ASK, max_tokens=24, temperature=0, stream=True, stream_options={"include_usage": True}))
    parts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(parts).strip(), "empty answer"
    within(len(parts), 2, 24, "pieces of text")
    within(chunks[-1].usage.completion_tokens, 1, 24, "completion_tokens")


@check
def streams_without_usage():
    for c in client(timeout=60).chat.completions.create(
            model=MODEL, messages=ASK, max_tokens=8, temperature=0, stream=True):
        assert c.choices, "a chunk without choices"
        assert c.usage is None, "usage that nobody asked for"


run()
