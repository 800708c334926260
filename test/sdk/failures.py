"""Errors, as the SDK's classes, and retries."""

import os
import time

import openai

from harness import (ADMIN_KEY, ASK, BASE, KEY, OPERATOR_KEY, admin_client, check, client, fetch, forget, raises, run,
                     same, seen, within)


def ask(c, model="up/ok", **more):
    return c.chat.completions.create(model=model, messages=ASK, **more)


def envelope(body):
    same(sorted(body), ["code", "message", "param", "type"], "keys of the error")
    assert isinstance(body["message"], str) and body["message"], "no message"
    for name in ("param", "code"):
        assert body[name] is None or isinstance(body[name], str), f"{name} is {body[name]!r}"
    assert isinstance(body["type"], str), "type"


@check
def wrong_keys():
    forget()
    other = "b" if KEY[-1] != "b" else "c"
    swapped = KEY[:-12] + KEY[-11] + KEY[-12] + KEY[-10:]
    for key in ("sk-nonsense", KEY[:-1] + other, KEY[:-1], KEY + "x", KEY.upper(), swapped if swapped != KEY else "sk-x"):
        with raises(openai.AuthenticationError, 401, code="invalid_api_key", request_id=bool) as box:
            ask(client(key))
        envelope(box.error.body)
        assert key not in str(box.error), "the key stands in the error"
    with raises(openai.AuthenticationError, 401, request_id=bool):
        client("sk-nonsense").models.list()
    same(seen(), [], "requests at the upstream")


@check
def keys_for_other_places():
    forget()
    for key in (ADMIN_KEY, OPERATOR_KEY):
        try:
            ask(client(key))
        except (openai.AuthenticationError, openai.PermissionDeniedError) as e:
            envelope(e.body)
        else:
            raise AssertionError("a key for management was answered by a model")
    for key in (KEY, OPERATOR_KEY):
        try:
            admin_client(key).admin.organization.projects.list()
        except (openai.AuthenticationError, openai.PermissionDeniedError) as e:
            envelope(e.body)
        else:
            raise AssertionError("management was open to another kind of key")
    same(seen(), [], "requests at the upstream")


@check
def no_key():
    status, headers, body = fetch("POST", BASE + "/chat/completions", None, {"model": "up/ok", "messages": ASK})
    same(status, 401, "status")
    envelope(body["error"])
    assert headers["x-request-id"], "no request id"


@check
def unknown_model():
    forget()
    for model in ("none", "up-none/ok", "agent/none", "up/", "openai/gpt-4o", "org-other/ok"):
        with raises(openai.NotFoundError, 404, code="model_not_found", param="model", request_id=bool) as box:
            ask(client(), model)
        envelope(box.error.body)
    with raises(openai.NotFoundError, 404, code="model_not_found"):
        client().models.retrieve("none/none")
    same(seen(), [], "requests at the upstream")


@check
def wrong_fields():
    forget()
    c = client()
    for param, more in (
        ("model", {"model": 7}), ("model", {"model": ""}), ("messages", {"messages": "x"}), ("stream", {"stream": "yes"}),
        ("n", {"n": 0}), ("max_tokens", {"max_tokens": -1}), ("max_completion_tokens", {"max_completion_tokens": 1.5}),
        ("stream_options", {"stream_options": 7, "stream": True}),
    ):
        with raises(openai.BadRequestError, 400, param=param, request_id=bool) as box:
            c.chat.completions.create(**{"model": "up/ok", "messages": ASK}, extra_body=more)
        envelope(box.error.body)
    with raises(openai.BadRequestError, 400, param="input"):
        c.post("/embeddings", body={"model": "up/ok"}, cast_to=object)
    same(seen(), [], "requests at the upstream")


@check
def ambiguous_bodies():
    forget()
    ask_text = '"messages":[{"role":"user","content":"x"}]'
    for body in (
        '{"model":"up/ok","model":"up/tools",%s}' % ask_text,
        '{"model":"up/ok","mod\\u0065l":"up/tools",%s}' % ask_text,
        '{"model":"up/ok","Model":"up/tools",%s}' % ask_text,
        '{"model":"up/ok",%s' % ask_text, '{"model":"up/ok",%s}}' % ask_text, '[]', '"x"', 'null', '',
        '{"model":"up/ok",%s,"x":%s1%s}' % (ask_text, "[" * 20_000, "]" * 20_000),
    ):
        status, _, answer = fetch("POST", BASE + "/chat/completions", KEY, body.encode())
        assert status == 400, f"status {status} for {body[:80]!r}"
        envelope(answer["error"])
    same(seen(), [], "requests at the upstream")


@check
def unknown_paths_and_methods():
    forget()
    for method, path, want in (
        ("GET", "/chat/completionsx", 404), ("POST", "/nothing", 404), ("GET", "/../admin/companies", 404),
        ("DELETE", "/embeddings", 405), ("PUT", "/chat/completions", 405), ("POST", "/batches", 404),
    ):
        status, headers, body = fetch(method, BASE + path, KEY, {} if method != "GET" else None)
        same(status, want, f"status of {method} {path}")
        envelope(body["error"])
        assert headers["x-request-id"], "no request id"
    same(seen(), [], "requests at the upstream")


@check
def upstream_errors():
    c = client()
    for code, kind in ((400, openai.BadRequestError), (422, openai.UnprocessableEntityError),
                       (429, openai.RateLimitError), (500, openai.InternalServerError), (503, openai.InternalServerError)):
        for stream in (False, True):
            with raises(kind, code if code < 500 else None, request_id=bool) as box:
                ask(c, f"up/status-{code}", stream=stream)
            envelope(box.error.body)
            within(box.error.status_code, 400, 599, "status")
    with raises(openai.InternalServerError):
        ask(c, "dead")
    with raises(openai.InternalServerError):
        ask(c, "up/garbage")
    with raises(openai.InternalServerError):
        ask(c, "up/redirect")
    same(seen("redirect")[-1:] != [], True, "the redirect was asked for")
    assert not [r for r in seen() if "/stolen" in r["path"]], "a redirect was followed"


@check
def broken_answers():
    c = client(timeout=10)
    for model in ("up/cut", "up/cut-clean", "up/garbage-json"):
        try:
            got = ask(c, model)
        except openai.APIError:
            continue
        raise AssertionError(f"{model} gave {got!r}")


@check
def upstream_key_stays_secret():
    try:
        ask(client(), "up/echo-key")
    except openai.APIStatusError as e:
        assert os.environ["UPSTREAM_SECRET"] not in e.response.text, "the provider's key stands in the error"
    else:
        raise AssertionError("no error")


@check
def sdk_retries_upstream_429():
    forget()
    start = time.monotonic()
    with raises(openai.RateLimitError, 429) as box:
        ask(client(max_retries=1), "up/status-429")
    same(len(seen("status-429")), 2, "requests at the upstream")
    h = box.error.response.headers
    assert "retry-after" in h or "retry-after-ms" in h, "the upstream's retry-after was lost"
    within(time.monotonic() - start, 0.9, 10, "the SDK waited as it was told, in seconds")


@check
def sdk_retries_a_failure():
    forget()
    r = ask(client(max_retries=2), "up/fail-once:sdk")
    same(r.choices[0].message.content, "Hello from the upstream", "content")
    same(len(seen("fail-once:sdk")), 2, "requests at the upstream")


@check
def rate_limit():
    admin = admin_client().admin.organization
    project = admin.projects.create(name="limited")
    key = admin.projects.service_accounts.create(project.id, name="worker").api_key.value
    limits = list(admin.projects.rate_limits.list_rate_limits(project.id))
    assert limits, "a project has no rate limits to change"
    row = next((l for l in limits if l.model == "*"), limits[0])
    forget()

    # Room enough: the headers say how much.
    admin.projects.rate_limits.update_rate_limit(
        row.id, project_id=project.id, max_requests_per_1_minute=1000, max_tokens_per_1_minute=1_000_000)
    c = client(key)
    h = c.chat.completions.with_raw_response.create(model="up/ok", messages=ASK).headers
    for what, most in (("requests", 1000), ("tokens", 1_000_000)):
        same(int(h[f"x-ratelimit-limit-{what}"]), most, "limit of " + what)
        within(int(h[f"x-ratelimit-remaining-{what}"]), 1, most - 1, "remaining " + what)
        assert h[f"x-ratelimit-reset-{what}"][-1] in "sm", "reset is not a duration: " + h[f"x-ratelimit-reset-{what}"]

    # No room: the second request of the minute is refused and never sent.
    admin.projects.rate_limits.update_rate_limit(row.id, project_id=project.id, max_requests_per_1_minute=1)
    forget()
    with raises(openai.RateLimitError, 429, code="rate_limit_exceeded", type="requests", request_id=bool) as box:
        for _ in range(3):
            ask(c)
    envelope(box.error.body)
    h = box.error.response.headers
    within(float(h["retry-after-ms"]), 1, 60_000, "retry-after-ms")
    assert len(seen()) <= 1, "a refused request reached the upstream"
    # Another project is not concerned.
    ask(client())


run()
