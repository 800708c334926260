"""Agents of the SDK's beta.agents, grounded in documents it uploads, through the sandbox and a real small model."""

import os

import openai

from harness import ADMIN_KEY, CANARY, check, client, run, same

DOCS = os.environ["DOCS"]
state = {}


def store():
    if "store" not in state:
        c = client()
        vs = c.vector_stores.create(name="handbook")
        for name in ("travel.pdf", "holidays.docx", "canteen.md"):
            with open(os.path.join(DOCS, name), "rb") as f:
                done = c.vector_stores.files.upload_and_poll(vector_store_id=vs.id, file=f)
            same(done.status, "completed", name)
        state["store"] = vs.id
    return state["store"]


def ask(model, question, **more):
    raw = client(timeout=120).chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": question}], **more)
    return raw, raw.parse().choices[0].message


@check
def life_of_an_agent():
    agents = client().beta.agents
    a = agents.create(model="sandbox/grounded", name="Handbook", instructions="Be brief.", metadata={"team": "people"},
                      extra_body={"slug": "sdk-handbook", "knowledge": {"stores": [store()]}})
    same((a.object, a.name, a.instructions, a.metadata, a.tools), ("agent", "Handbook", "Be brief.", {"team": "people"}, []), "as made")
    same((a.service_tier, a.multi_agent.enabled, a.text.format.type, a.reasoning.effort), ("auto", False, "text", None), "what is off")
    same(a.slug, "sdk-handbook", "slug")
    same(agents.retrieve(a.id), a, "as read")
    b = agents.update(a.id, instructions=None, name="Handbook of people")
    same((b.name, b.instructions, b.version), ("Handbook of people", None, 2), "as changed")
    assert a.id in [x.id for x in agents.list(limit=1)], "not in the pages of the list"
    assert "agent/sdk-handbook" in [m.id for m in client().models.list()], "not among the models"
    for bad in ({"tools": [{"type": "web_search"}]}, {"service_tier": "flex"}, {"model": "agent/sdk-handbook"}):
        try:
            agents.update(a.id, **bad)
            raise AssertionError(f"{bad} was taken")
        except openai.BadRequestError as e:
            same(e.param, next(iter(bad)), "the field that is refused")


@check
def answers_are_grounded():
    for question, want in (("When does the canteen open?", "The canteen opens at noon and closes at two. ["),
                           ("How many days of holiday does everybody have?", "Everybody has thirty days of holiday in a year. ["),
                           ("Who books trains?", "Trains are booked by the office")):
        raw, message = ask("agent/sdk-handbook", question, extra_headers={"X-Bulkhead-Annotations": "true"})
        assert want in message.content, message.content
        assert raw.headers["x-bulkhead-knowledge"].startswith("passages="), raw.headers
        assert message.annotations and message.annotations[0].type == "file_citation", message.annotations
    raw, message = ask("agent/sdk-handbook", "Xylophone?")
    same(raw.headers["x-bulkhead-knowledge"], "passages=0", "nothing is known")
    assert message.content.startswith("I do not know"), message.content


@check
def streams():
    def chunks(model="agent/sdk-handbook", **more):
        return [c.choices[0] for c in client().chat.completions.create(
            model=model, messages=[{"role": "user", "content": "When does the canteen open?"}], stream=True, **more) if c.choices]

    plain = chunks()
    assert "opens at noon" in "".join(c.delta.content or "" for c in plain), plain
    assert not any(hasattr(c.delta, "annotations") for c in plain), "not asked for"
    cited = chunks(extra_headers={"X-Bulkhead-Annotations": "true"}, stream_options={"include_usage": True})
    assert "opens at noon" in "".join(c.delta.content or "" for c in cited), cited
    found = [i for i, c in enumerate(cited) if hasattr(c.delta, "annotations")]
    same(len(found), 1, "chunks with annotations")
    assert all(c.finish_reason is None for c in cited[:found[0] + 1]) and cited[-1].finish_reason == "stop", "they come before the end"
    one = cited[found[0]].delta.annotations[0]
    same((one["type"], one["filename"], one["index"], one["vector_store_id"]), ("file_citation", "canteen.md", 1, store()), "the citation")
    with client().chat.completions.stream(model="agent/sdk-handbook", messages=[{"role": "user", "content": "When does the canteen open?"}],
                                          extra_headers={"X-Bulkhead-Annotations": "true"}) as stream:
        message = stream.get_final_completion().choices[0].message
    assert "opens at noon" in message.content and message.annotations[0].filename == "canteen.md", message


@check
def a_real_model_receives_the_passage():
    agent = client().beta.agents.create(model="llm/smollm2-135m", extra_body={"slug": "real", "knowledge": {"stores": [store()], "top_k": 1}})
    question = f"When does the canteen open? ({CANARY})"
    bare, _ = ask("llm/smollm2-135m", question, max_tokens=8, temperature=0)
    raw, message = ask("agent/real", question, max_tokens=8, temperature=0)
    assert message.content.strip(), "empty answer"
    more = raw.parse().usage.prompt_tokens - bare.parse().usage.prompt_tokens
    assert more > 60, f"{more} tokens more than without the passage"
    client().beta.agents.delete(agent.id)


@check
def contexts():
    admin = client(ADMIN_KEY)
    c = admin.post("/organization/contexts", cast_to=object, body={"kind": "voice", "text": "Speak like a sailor."})
    echo = client().beta.agents.create(model="sandbox/echo", extra_body={"slug": "sdk-echo"})
    raw, message = ask("agent/sdk-echo", "ahoy")
    same(message.content, "ahoy", "what the last user says")
    admin.delete("/organization/contexts/" + c["id"], cast_to=object)
    same(client().beta.agents.delete(echo.id).deleted, True, "deleted")


run()
