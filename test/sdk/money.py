"""The SDK's calls about money: limits, alerts, usage and costs. What is spent here the sandbox bills; the scripted upstream has no prices."""

import json
import time
from decimal import Decimal

import openai

from harness import ADMIN_KEY, ASK, BASE, PROJECT, admin_client, check, client, eventually, fetch, raises, run, same, within

c = admin_client()
org = c.admin.organization
NOW = int(time.time())
SPAN = {"start_time": NOW - 86400, "end_time": NOW + 86400}
MONTH = {"currency": "USD", "interval": "month"}
HOOK = {"type": "webhook", "url": "https://hooks.example.com/spend"}


def strict(obj, object_name):
    """Holds the answer as it came over the wire against obj's type: names, types, constants."""
    type(obj).model_validate_json(c.record.body, strict=True)
    same(obj.object, object_name, "object")
    return obj


def results(page, kind):
    """The results of all buckets, each bucket checked."""
    raw = json.loads(c.record.body)
    same((raw["object"], page.object), ("page", "page"), "object of a page")
    out = []
    for bucket in page.data:
        same(bucket.object, "bucket", "object of a bucket")
        assert bucket.start_time < bucket.end_time, "a bucket without time"
        for r in bucket.results:
            type(r).model_validate_json(r.model_dump_json(), strict=True)
            same(r.object, kind, "object of a result")
        out += bucket.results
    return out


def spend():
    """Makes calls of each kind and returns what they cost, from their headers, once the ledger has it."""
    work = up = client()
    cost = Decimal(0)
    for call in (
        lambda: work.chat.completions.with_raw_response.create(model="sandbox/echo", messages=ASK, user="alice"),
        lambda: work.chat.completions.with_raw_response.create(model="sandbox/echo", messages=ASK),
        lambda: up.embeddings.with_raw_response.create(model="up/ok", input="some text"),
        lambda: up.moderations.with_raw_response.create(model="up/ok", input="some text"),
    ):
        cost += Decimal(call().headers["x-bulkhead-cost-usd"])
    return cost


def costs(**more):
    """All costs, to the last digit: as they came over the wire, not as floating point."""
    org.usage.costs(**SPAN, **more)
    raw = json.loads(c.record.body, parse_float=Decimal, parse_int=Decimal)
    return [r for b in raw["data"] for r in b["results"]]


def total():
    return sum((r["amount"]["value"] for r in costs()), Decimal(0))


@check
def company_spend_limit():
    limit = org.spend_limit
    with raises(openai.NotFoundError, 404):
        limit.retrieve()
    made = strict(limit.update(threshold_amount=123_45, **MONTH), "organization.spend_limit")
    same((made.threshold_amount, made.currency, made.interval, made.enforcement.status), (12345, "USD", "month", "enforcing"), "limit")
    same(strict(limit.retrieve(), "organization.spend_limit").to_dict(), made.to_dict(), "retrieved")
    same(limit.update(threshold_amount=99, **MONTH).threshold_amount, 99, "updated")
    # It is a budget of this gateway, and only one.
    _, _, budgets = fetch("GET", BASE + "/organization/budgets", ADMIN_KEY)
    same([(b["scope"]["type"], b["window"], b["limit_usd"]) for b in budgets["data"]], [("company", "month", "0.99")], "budgets")
    gone = strict(limit.delete(), "organization.spend_limit.deleted")
    same(gone.deleted, True, "deleted")
    with raises(openai.NotFoundError, 404):
        limit.retrieve()
    for bad, param in (({"threshold_amount": 0}, "threshold_amount"), ({"threshold_amount": 1, "currency": "EUR"}, "currency"),
                       ({"threshold_amount": 1, "interval": "day"}, "interval"), ({"threshold_amount": 900_000_001}, "threshold_amount")):
        with raises(openai.BadRequestError, 400, param=param):
            limit.update(**{**MONTH, **bad})


@check
def project_spend_limit():
    limit = org.projects.spend_limit
    made = strict(limit.update(PROJECT, threshold_amount=100_000, **MONTH), "project.spend_limit")
    same(made.threshold_amount, 100_000, "limit")
    strict(limit.retrieve(PROJECT), "project.spend_limit")
    strict(limit.delete(PROJECT), "project.spend_limit.deleted")
    for call in (lambda: limit.retrieve(PROJECT), lambda: limit.retrieve("proj_nobody"), lambda: limit.delete("proj_nobody"),
                 lambda: limit.update("proj_nobody", threshold_amount=1, **MONTH)):
        with raises(openai.NotFoundError, 404):
            call()


@check
def a_limit_holds():
    p = org.projects.create(name="poor")
    key = org.projects.service_accounts.create(p.id, name="w").api_key.value
    client(key).chat.completions.create(model="sandbox/echo", messages=ASK)
    status, _, b = fetch("POST", BASE + "/organization/budgets", ADMIN_KEY,
                         {"scope": {"type": "project", "id": p.id}, "window": "day", "limit_usd": "0.000000001"})
    same(status, 200, "status")
    assert Decimal(b["spent_usd"]) > 0, "nothing is spent"
    same((b["held_usd"], b["remaining_usd"]), ("0", "0"), "held and remaining")
    with raises(openai.RateLimitError, 429, code="insufficient_quota"):
        client(key).chat.completions.create(model="sandbox/echo", messages=ASK)
    fetch("DELETE", BASE + "/organization/budgets/" + b["id"], ADMIN_KEY)
    client(key).chat.completions.create(model="sandbox/echo", messages=ASK)


def alerts_of(alerts, name, *project):
    made = alerts.create(*project, threshold_amount=90_000_000, notification_channel=HOOK, **MONTH)
    same((made.object, made.threshold_amount, made.currency, made.interval), (name, 90_000_000, "USD", "month"), "alert")
    raw = json.loads(c.record.body)
    assert raw["notification_channel"]["secret"].startswith("whsec_"), "no secret"
    same((made.notification_channel.recipients, raw["notification_channel"]["url"]), ([], HOOK["url"]), "channel")
    where = {"project_id": project[0]} if project else {}
    got = alerts.retrieve(made.id, **where)
    same((got.id, got.threshold_amount), (made.id, 90_000_000), "retrieved")
    assert "secret" not in c.record.body.decode(), "the secret is shown again"
    changed = alerts.update(made.id, **where, threshold_amount=80_000_000, notification_channel=HOOK, **MONTH)
    same(changed.threshold_amount, 80_000_000, "changed")
    more = [alerts.create(*project, threshold_amount=90_000_000, notification_channel=HOOK, **MONTH).id for _ in range(3)]
    same([a.id for a in alerts.list(*project, limit=2)], [made.id, *more], "list, oldest first")
    same([a.id for a in alerts.list(*project, limit=1, order="desc")], [made.id, *more][::-1], "list, newest first")
    for id in [made.id, *more]:
        gone = strict(alerts.delete(id, **where), name + ".deleted")
        same((gone.id, gone.deleted), (id, True), "deleted")
    with raises(openai.NotFoundError, 404):
        alerts.retrieve(made.id, **where)
    same(list(alerts.list(*project)), [], "list afterwards")


@check
def company_spend_alerts():
    alerts_of(org.spend_alerts, "organization.spend_alert")


@check
def project_spend_alerts():
    alerts_of(org.projects.spend_alerts, "project.spend_alert", PROJECT)


@check
def bad_alerts():
    def bad(param, threshold=1, **channel):
        with raises(openai.BadRequestError, 400, param=param):
            org.spend_alerts.create(threshold_amount=threshold, notification_channel=channel, **MONTH)
    bad("threshold_amount", threshold=-1, **HOOK)
    bad("notification_channel.type", type="email", recipients=["finance@example.com"])
    bad("notification_channel.type", type="pigeon")
    bad("notification_channel.recipients", **HOOK, recipients=["finance@example.com"])
    bad("notification_channel.subject_prefix", **HOOK, subject_prefix="x")
    for url in ("", "http://hooks.example.com", "https://127.0.0.1/x", "https://localhost/x", "https://10.0.0.1", "https://hooks.example.com:22/x",
                "https://user:pass@hooks.example.com/", "https://hooks.example.com/x?y=1", "ftp://hooks.example.com"):
        bad("notification_channel.url", type="webhook", url=url)


@check
def usage_and_costs():
    before = total()
    spent = spend()
    assert spent > 0, "nothing was spent"
    eventually(10, "the ledger has it", lambda: total() == before + spent)
    usage = org.usage

    chat = results(usage.completions(**SPAN), "organization.usage.completions.result")
    same(len(chat), 1, "one group")
    assert chat[0].num_model_requests >= 2 and chat[0].input_tokens > 0 and chat[0].output_tokens > 0, chat[0]
    same([getattr(chat[0], f) for f in ("project_id", "user_id", "api_key_id", "model", "batch", "service_tier")], [None] * 6, "no groups")
    grouped = results(usage.completions(**SPAN, group_by=["project_id", "model", "batch", "service_tier", "user_id", "api_key_id", "api_source"]),
                      "organization.usage.completions.result")
    same(sum(r.num_model_requests for r in grouped), chat[0].num_model_requests, "the groups are all")
    mine = [r for r in grouped if r.project_id == PROJECT]
    assert {(r.model, r.batch, r.service_tier, r.api_source) for r in mine} == {("sandbox/echo", False, "default", "unlabeled")}, mine
    key = mine[0].api_key_id
    only = results(usage.completions(**SPAN, project_ids=[PROJECT], api_key_ids=[key], models=["sandbox/echo"], batch=False),
                   "organization.usage.completions.result")
    same(sum(r.num_model_requests for r in only), sum(r.num_model_requests for r in mine if r.api_key_id == key), "narrowed")
    for none in ({"project_ids": ["proj_nobody"]}, {"api_key_ids": ["key_nobody"]}, {"models": ["gpt-4o"]}, {"batch": True}, {"user_ids": ["nobody"]}):
        same(results(usage.completions(**SPAN, **none), ""), [], f"{none}")

    embedded = results(usage.embeddings(**SPAN, group_by=["model"]), "organization.usage.embeddings.result")
    assert [r.model for r in embedded] == ["up/ok"] and embedded[0].input_tokens > 0, embedded
    moderated = results(usage.moderations(**SPAN), "organization.usage.moderations.result")
    within(moderated[0].num_model_requests, 1, 100, "moderations")

    # By the minute and by the hour it is the same, over pages too.
    for width, limit in (("1m", 1440), ("1h", 5), ("1d", 1)):
        pages, page, sums = 0, None, [0, 0]
        while True:
            got = usage.completions(start_time=NOW - 7200, end_time=NOW + 86400, bucket_width=width, limit=limit, **({"page": page} if page else {}))
            for r in results(got, "organization.usage.completions.result"):
                sums[0] += r.num_model_requests
                sums[1] += r.input_tokens
            pages, page = pages + 1, got.next_page
            if not got.has_more:
                break
        same((page, sums), (None, [chat[0].num_model_requests, chat[0].input_tokens]), width)
        within(pages, 2, 40, "pages")


@check
def costs_are_exact():
    spend()
    eventually(10, "the ledger is written", lambda: fetch("GET", BASE.replace("/v1", "") + "/v1/organization/ledger/export?format=jsonl&end_time=1", ADMIN_KEY)[0] == 200)
    page = org.usage.costs(**SPAN, group_by=["line_item", "project_id", "user_id", "api_key_id", "api_source"])
    got = results(page, "organization.costs.result")
    assert {r.amount.currency for r in got} == {"usd"}, got
    items = {r.line_item for r in got}
    assert {"sandbox/echo", "up/ok"} <= items, items
    same({r.quantity_unit for r in got}, {"tokens"}, "unit")
    by_item = sum((r["amount"]["value"] for r in costs(group_by=["line_item"])), Decimal(0))
    same(by_item, total(), "the sum of the line items")
    one = costs(group_by=["line_item"], line_items=["sandbox/echo"])
    same([r["line_item"] for r in one], ["sandbox/echo"], "one line item")
    same(costs(project_ids=["proj_nobody"]), [], "of no project")
    for bad, param in (({"bucket_width": "1h"}, "bucket_width"), ({"limit": 181}, "limit"), ({"page": "x"}, "page")):
        with raises(openai.BadRequestError, 400, param=param):
            org.usage.costs(**SPAN, **bad)


@check
def requests_per_day():
    p = org.projects.create(name="daily")
    key = org.projects.service_accounts.create(p.id, name="w").api_key.value
    limits = org.projects.rate_limits
    row = next(r for r in limits.list_rate_limits(p.id) if r.model == "*")
    same(row.max_requests_per_1_day, None, "limit per day")
    changed = strict(limits.update_rate_limit(row.id, project_id=p.id, max_requests_per_1_day=2), "project.rate_limit")
    same(changed.max_requests_per_1_day, 2, "limit per day")
    same(next(r for r in limits.list_rate_limits(p.id) if r.model == "*").max_requests_per_1_day, 2, "listed")
    for _ in range(2):
        client(key).chat.completions.create(model="sandbox/echo", messages=ASK)
    with raises(openai.RateLimitError, 429):
        client(key).chat.completions.create(model="sandbox/echo", messages=ASK)
    same(limits.update_rate_limit(row.id, project_id=p.id, max_requests_per_1_day=2**31 - 1).max_requests_per_1_day, None, "taken away")
    client(key).chat.completions.create(model="sandbox/echo", messages=ASK)


run()
