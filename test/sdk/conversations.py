"""Conversations of the official SDK, and chats that join them."""

import json

import openai

from harness import ADMIN_KEY, CANARY, check, client, forget, last, raises, run, same, text_of


def messages():
    """What the upstream was last sent."""
    return [(m["role"], m["content"]) for m in json.loads(last("ok")["body"])["messages"]]


def say(text, conversation, **more):
    return client().chat.completions.with_raw_response.create(
        model="up/ok", messages=[{"role": "user", "content": text}], extra_headers={"X-Conversation-Id": conversation}, **more)


@check
def life_of_a_conversation():
    c = client().conversations
    a = c.create(metadata={"topic": "demo"}, items=[{"type": "message", "role": "user", "content": "Hello! " + CANARY}])
    same((a.object, a.metadata), ("conversation", {"topic": "demo"}), "as made")
    assert a.id.startswith("conv_"), a.id
    same(c.retrieve(a.id), a, "as read")
    b = c.update(a.id, metadata={"topic": "other"})
    same((b.id, b.metadata, b.created_at), (a.id, {"topic": "other"}, a.created_at), "as changed")
    same(c.update(a.id, metadata=None).metadata, {}, "without metadata")
    d = c.delete(a.id)
    same((d.id, d.object, d.deleted), (a.id, "conversation.deleted", True), "as deleted")
    for gone in (lambda: c.retrieve(a.id), lambda: c.delete(a.id), lambda: c.update(a.id, metadata={}), lambda: c.items.list(a.id)):
        with raises(openai.NotFoundError, 404, code="not_found"):
            gone()


@check
def items():
    c = client().conversations
    conv = c.create()
    made = c.items.create(conv.id, items=[
        {"role": "user", "content": [{"type": "input_text", "text": "one"}, {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"}]},
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "found"},
        {"role": "assistant", "content": "two"},
    ])
    same([i.type for i in made.data], ["message", "function_call", "function_call_output", "message"], "types")
    same((made.data[0].role, made.data[0].status, made.data[0].content[1].type), ("user", "completed", "input_image"), "a message")
    same((made.data[3].content[0].type, made.data[3].content[0].text), ("output_text", "two"), "an answer")
    same((made.first_id, made.last_id, made.has_more), (made.data[0].id, made.data[3].id, False), "list")
    assert made.data[0].id.startswith("msg_"), made.data[0].id
    same([i.id for i in c.items.list(conv.id, limit=1, order="asc")], [i.id for i in made.data], "pages, oldest first")
    same([i.id for i in c.items.list(conv.id, limit=3)], [i.id for i in reversed(made.data)], "pages, newest first")
    same(c.items.retrieve(made.data[2].id, conversation_id=conv.id).output, "found", "one item")
    same(c.items.delete(made.data[2].id, conversation_id=conv.id).id, conv.id, "deleting an item")
    with raises(openai.NotFoundError, 404):
        c.items.retrieve(made.data[2].id, conversation_id=conv.id)
    with raises(openai.BadRequestError, 400, param="after"):
        list(c.items.list(conv.id, after=made.data[2].id))
    for bad, param in (([{"role": "user", "content": "x"}] * 21, "items"), ([{"type": "reasoning", "summary": []}], "items[0]"),
                       ([{"role": "tool", "content": "x"}], "items[0].role"), ([{"role": "user", "content": [{"type": "video"}]}], "items[0].content[0].type"),
                       ([{"type": "function_call", "name": "x", "arguments": "{}"}], "items[0].call_id"), ([], "items")):
        with raises(openai.BadRequestError, 400, param=param):
            c.items.create(conv.id, items=bad)
    with raises(openai.BadRequestError, 400):
        c.create(metadata={"x": "y" * 513})
    with raises(openai.PermissionDeniedError, 403, code="project_key_required"):
        client(ADMIN_KEY).conversations.retrieve(conv.id)


@check
def two_days():
    forget()
    first = say("My name is Ada, and I like tea. " + CANARY, "new")
    conv = first.headers["x-conversation-id"]
    same(first.headers["x-conversation-id"], conv, "header")
    client().conversations.update(conv, metadata={"day": "1"})
    # Another day, another process: nothing but the id is known.
    second = say("What do I like?", conv)
    same(messages(), [("user", "My name is Ada, and I like tea. " + CANARY), ("assistant", "Hello from the upstream"), ("user", "What do I like?")], "sent")
    chunks = list(client().chat.completions.create(model="up/ok", messages=[{"role": "user", "content": "Who am I?"}], stream=True,
                                                   extra_headers={"X-Conversation-Id": conv}))
    same(text_of(chunks), "Hello from the upstream", "streamed")
    same([m[1] for m in messages()][-3:], ["What do I like?", "Hello from the upstream", "Who am I?"], "sent with a stream")
    said = [i.content[0].text for i in client().conversations.items.list(conv, order="asc")]
    same(said[-2:], ["Who am I?", "Hello from the upstream"], "the stream is remembered")
    same(len(said), 6, "items")


@check
def a_conversation_is_one_end_users():
    conv = say("secret", "new", user="ada").headers["x-conversation-id"]
    say("again", conv, user="ada")
    for who in ({"user": "bob"}, {}):
        with raises(openai.NotFoundError, 404, code="conversation_not_found", param="X-Conversation-Id"):
            say("what?", conv, **who)
    with raises(openai.NotFoundError, 404, code="conversation_not_found"):
        say("what?", "conv_never", user="ada")


run()
