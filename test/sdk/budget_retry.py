"""Budgets: what is held, what is spent, and what the SDK makes of each."""

import os
import re
import threading
import time
from decimal import Decimal

import openai

from harness import ADMIN_KEY, UPSTREAM, URL, check, client, eventually, fetch, forget, page, raises, run, same, seen

MODEL = "openai/gpt-4o-mini"


def ask(c, text, **more):
    return c.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": text}], max_completion_tokens=500, **more)


# Where each of many gateways has its metrics; none where there is one.
FLEET = [url for url in os.environ.get("FLEET_OPS_URLS", "").split(",") if url]


def heard(url):
    """When that gateway last asked for changes and was told."""
    now = time.time()
    return now - float(re.search(r"^bulkhead_policy_stale_seconds (.*)$", page(url + "/metrics"), re.M)[1])


def budget(limit):
    """Sets the company's budget, waits until every gateway knows, and returns its path."""
    status, _, b = fetch("POST", URL + "/v1/organization/budgets", ADMIN_KEY,
                         {"scope": {"type": "company"}, "window": "month", "limit_usd": limit})
    assert status in (200, 201), b
    done = time.time()
    for url in FLEET:
        eventually(10, url + " knows of the budget", lambda: heard(url) > done)
    return URL + "/v1/organization/budgets/" + b["id"]


def stands(path):
    _, _, b = fetch("GET", path, ADMIN_KEY)
    return Decimal(b["spent_usd"]), Decimal(b["held_usd"])


@check
def retries_what_is_held():
    forget()
    path = budget("0.0013")  # two calls are held at 0.00057 each, and cost half of it
    answers, refused = [], []

    def call(text, **options):
        c = client(**options)
        c._client.event_hooks["response"].append(lambda r: refused.append(r) if r.status_code == 429 else None)
        answers.append(ask(c, text))

    first = [threading.Thread(target=call, args=("wait for it",)) for _ in range(2)]
    for t in first:
        t.start()
    eventually(10, "two calls run", lambda: len(seen()) == 2)
    spent, held = stands(path)
    assert spent == 0 and held > Decimal("0.001"), f"{spent} spent, {held} held"
    second = [threading.Thread(target=call, args=("at once",), kwargs={"max_retries": 2}) for _ in range(2)]
    for t in second:
        t.start()
    eventually(10, "both are refused", lambda: len(refused) >= 2)
    for r in refused:
        same(r.headers.get("retry-after-ms"), "2000", "retry-after-ms")
        assert r.headers.get("x-bulkhead-budget-remaining-usd"), "what is left"
    fetch("POST", UPSTREAM + "/_release")
    for t in first + second:
        t.join(30)
    same(len(answers), 4, "answers")
    same(len(seen()), 4, "requests at the upstream")
    eventually(10, "all is settled", lambda: stands(path)[1] == 0)


@check
def gives_up_what_is_spent():
    spent, _ = stands(budget("1"))
    path = budget(str(spent + Decimal("0.000001")))
    forget()
    for stream in (False, True):
        c, refused = client(max_retries=2), []
        c._client.event_hooks["response"].append(lambda r: refused.append(r.status_code))
        with raises(openai.RateLimitError, 429, code="insufficient_quota", type="insufficient_quota") as box:
            ask(c, "too late", stream=stream)
        same(refused, [429], "answers: there is no second try")
        for word in ("allowed", "spent", "held", "begins anew at"):
            assert word in box.error.message, box.error.message
    same(seen(), [], "requests at the upstream")
    same(stands(path), (spent, 0), "what is spent")


run()
