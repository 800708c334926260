"""The SDK's workload identity and its administration, unmodified, with tokens of an issuer of the test."""

import json
import os
import urllib.parse
import urllib.request

import openai
from openai.auth import WorkloadIdentityAuth

from harness import ADMIN_KEY, ASK, BASE, OPERATOR_KEY, OPS, PROJECT, admin_client, check, client, fetch, raises, run, same

ISSUER = os.environ["ISSUER"]
TOKENS = os.environ["TOKENS_URL"]
EXCHANGES = os.environ["EXCHANGES_URL"]
ORG = ADMIN_KEY.split("-")[3]
AUDIENCE = "bulkhead:" + ORG

c = admin_client()
org = c.admin.organization
wip = org.workload_identity_providers
rules = wip.federation_rules


def strict(obj, object_name):
    """Holds the answer as it came over the wire against the SDK's own type."""
    type(obj).model_validate_json(c.record.body, strict=True)
    same(obj.object, object_name, "object")
    return obj


def provider(obj):
    return strict(obj, "organization.workload_identity_provider")


def rule(obj):
    return strict(obj, "organization.workload_identity_federation_rule")


def token(subject="job", audience=AUDIENCE):
    query = urllib.parse.urlencode({"sub": subject, "aud": audience})
    with urllib.request.urlopen(TOKENS + "?" + query, timeout=5) as r:
        return r.read().decode()


class World:
    """What the checks share, in their order."""


w = World()


def identity(subject="job"):
    return {
        "identity_provider_id": w.provider,
        "service_account_id": w.account,
        "provider": {"token_type": "jwt", "get_token": lambda: token(subject)},
    }


def exchanging(subject="job"):
    auth = WorkloadIdentityAuth(workload_identity=identity(subject), token_exchange_url=BASE + "/oauth/token")
    return openai.OpenAI(api_key=auth.get_token, base_url=BASE, max_retries=0)


def ask(sdk):
    return sdk.chat.completions.create(model="up/ok", messages=ASK)


@check
def providers():
    p = provider(wip.create(name="CI", type="oidc", issuer=ISSUER, audience=AUDIENCE, verification={"type": "discovery", "discovery_url": None}))
    same((p.issuer, p.audience, p.enabled, p.type, p.description, p.attribute_transformations), (ISSUER, AUDIENCE, True, "oidc", None, []), "provider")
    same((p.verification.type, p.verification.discovery_url), ("discovery", None), "verification")
    w.provider = p.id
    same(provider(wip.retrieve(p.id)), p, "provider")
    p = provider(wip.update(p.id, name="Jobs", description="what runs", attribute_transformations=[{"attribute": "who", "expression": "assertion.sub"}]))
    same((p.name, p.description, p.attribute_transformations[0].expression, p.issuer), ("Jobs", "what runs", "assertion.sub", ISSUER), "updated")
    same(provider(wip.update(p.id, description=None)).description, None, "an emptied description")


@check
def uploaded_keys():
    with urllib.request.urlopen(TOKENS + "/jwks", timeout=5) as r:
        jwks = json.loads(r.read())
    p = provider(wip.create(name="Uploaded", type="oidc", issuer="https://uploaded.example", audience=AUDIENCE, enabled=False,
                            verification={"type": "uploaded_jwks", "jwks": jwks}))
    same((p.verification.jwks, p.enabled), (jwks, False), "uploaded keys")
    same(wip.update(p.id, verification={"type": "discovery", "discovery_url": "https://keys.example.com/openid"}).verification.discovery_url,
         "https://keys.example.com/openid", "discovery instead")
    w.spare = p.id


@check
def provider_pages():
    same([p.id for p in wip.list(limit=1, order="asc")], [w.provider, w.spare], "all pages")
    page = wip.list(limit=1, order="desc")
    same((page.data[0].id, page.has_more), (w.spare, True), "the first page")
    same([p.id for p in wip.list(order="asc", after=w.provider)], [w.spare], "after the first")


@check
def federation_rules():
    w.account = org.projects.service_accounts.create(PROJECT, name="ci").id
    r = rule(rules.create(w.provider, attribute_matchers={"who": "job", "ok": True, "n": 7}, project_id=PROJECT, service_account_id=w.account, name="jobs"))
    same((r.workload_identity_provider_id, r.project_id, r.service_account_id, r.enabled), (w.provider, PROJECT, w.account, True), "rule")
    same((r.permissions.type, r.attribute_matchers, r.description), ("service_account_default", {"who": "job", "ok": True, "n": 7}, None), "rule")
    w.rule = r.id
    same(rule(rules.retrieve(r.id, workload_identity_provider_id=w.provider)), r, "rule")
    r = rule(rules.update(r.id, workload_identity_provider_id=w.provider, description="d", permissions={"type": "restricted", "scopes": ["api.model.request"]}))
    same((r.permissions.scopes, r.description), (["api.model.request"], "d"), "updated")
    other = rule(rules.create(w.provider, attribute_matchers={"who": "clerk"}, project_id=PROJECT, service_account_id=w.account, enabled=False,
                              permissions={"type": "restricted", "scopes": ["api.usage.read"]}))
    w.clerk = other.id
    same([r.id for r in rules.list(w.provider, limit=1, order="asc")], [w.rule, w.clerk], "all pages")
    same([r.id for r in rules.list(w.provider, service_account_id="svc_acct_none")], [], "of another account")


@check
def refused_fields():
    def bad(param, f, **more):
        with raises(openai.BadRequestError, 400, param=param):
            f(**more)

    def make(**more):
        body = {"name": "x", "type": "oidc", "issuer": "https://a.example.com", "audience": AUDIENCE}
        wip.create(**{**body, **more})

    bad("audience", make, audience="https://api.openai.com/v1")
    bad("audience", make, audience="bulkhead:0000000000")
    bad("type", make, type="x509")
    bad("issuer", make, issuer="https://\u0430.example.com")
    bad("issuer", make, issuer="https://a.example.com/#x")
    bad("verification.jwks", make, verification={"type": "uploaded_jwks", "jwks": {"keys": []}})
    bad("verification.jwks", make, verification={"type": "uploaded_jwks", "jwks": {"keys": [{"kty": "oct", "kid": "a", "k": "c2VjcmV0"}]}})
    bad("verification.discovery_url", make, verification={"type": "discovery", "discovery_url": "ftp://a.example.com"})
    bad("attribute_transformations", make, attribute_transformations=[{"attribute": "a", "expression": "assertion.a + 'b'"}])

    def let(**more):
        body = {"attribute_matchers": {"sub": "x"}, "project_id": PROJECT, "service_account_id": w.account}
        rules.create(w.provider, **{**body, **more})

    bad("attribute_matchers", let, attribute_matchers={})
    bad("attribute_matchers", let, attribute_matchers={"sub": None})
    bad("service_account_id", let, service_account_id="svc_acct_none")
    bad("service_account_id", let, project_id="proj_none")
    bad("permissions.scopes", let, permissions={"type": "restricted", "scopes": ["api.everything"]})
    bad("permissions.scopes", let, permissions={"type": "restricted", "scopes": ["api.audit_logs.read"]})
    with raises(openai.ConflictError, 409):
        make(issuer=ISSUER)


@check
def approved_audience():
    status, _, made = fetch("POST", f"{OPS}/admin/companies/org-{ORG}/audiences", OPERATOR_KEY, {"audience": "api://jobs"})
    same((status, made["audience"]), (200, "api://jobs"), "audience")
    p = wip.create(name="Approved", type="oidc", issuer=ISSUER, audience="api://jobs")
    rules.create(p.id, attribute_matchers={"sub": "job"}, project_id=PROJECT, service_account_id=w.account)
    ask(client(token("job", "api://jobs")))
    wip.delete(p.id)


@check
def workload_identity():
    sdk = exchanging()
    for _ in range(3):
        assert ask(sdk).choices[0].message.content, "an answer"


@check
def workload_identity_argument():
    # As the SDK's documentation has it, with the exchange where OpenAI's is.
    before = int(urllib.request.urlopen(EXCHANGES, timeout=5).read())
    sdk = openai.OpenAI(workload_identity=identity(), base_url=BASE, max_retries=0)
    for _ in range(3):
        assert ask(sdk).choices[0].message.content, "an answer"
    same(int(urllib.request.urlopen(EXCHANGES, timeout=5).read()) - before, 1, "exchanges for three calls")


@check
async def workload_identity_async():
    sdk = openai.AsyncOpenAI(workload_identity=identity(), base_url=BASE, max_retries=0)
    stream = await sdk.chat.completions.create(model="up/chunks-3", messages=ASK, stream=True)
    assert [chunk async for chunk in stream], "a stream"


@check
def exchange_refused():
    with raises(openai.OAuthError, 400, error="invalid_grant"):
        ask(exchanging("stranger"))
    auth = WorkloadIdentityAuth(workload_identity={**identity(), "provider": {"token_type": "id", "get_token": lambda: token()[:-4] + "AAAA"}},
                                token_exchange_url=BASE + "/oauth/token")
    with raises(openai.OAuthError, 400, error="invalid_subject_token"):
        auth.get_token()


@check
def token_as_key():
    assert ask(client(token())).choices[0].message.content, "an answer"
    with raises(openai.PermissionDeniedError, 403):
        ask(client(token("stranger")))
    with raises(openai.AuthenticationError, 401):
        ask(client(token("job", "bulkhead:0000000000")))
    with raises(openai.AuthenticationError, 401):
        ask(client(token("job", "api://jobs")))  # its provider was deleted


@check
def restricted():
    rules.update(w.clerk, workload_identity_provider_id=w.provider, enabled=True)
    with raises(openai.PermissionDeniedError, 403):
        ask(client(token("clerk")))


@check
def audit():
    def rows(kind):
        return [e for e in org.audit_logs.list(event_types=[kind], limit=50)]

    same(rows("workload_identity_provider.created")[-1].id != "", True, "a provider in the log")
    assert len(rows("workload_identity_provider_mapping.updated")) >= 2, "rules in the log"


@check
def disabled():
    sdk, jwt = exchanging(), token()
    ask(sdk)
    rules.update(w.rule, workload_identity_provider_id=w.provider, enabled=False)
    with raises(openai.PermissionDeniedError, 403):
        ask(client(jwt))
    with raises(openai.AuthenticationError, 401):
        ask(sdk)
    rules.update(w.rule, workload_identity_provider_id=w.provider, enabled=True)
    ask(client(jwt))


@check
def deleted():
    jwt = token()
    ask(client(jwt))
    strict(rules.delete(w.rule, workload_identity_provider_id=w.provider), "organization.workload_identity_federation_rule.deleted")
    with raises(openai.NotFoundError, 404):
        rules.retrieve(w.rule, workload_identity_provider_id=w.provider)
    strict(wip.delete(w.provider), "organization.workload_identity_provider.deleted")
    with raises(openai.NotFoundError, 404):
        wip.retrieve(w.provider)
    with raises(openai.AuthenticationError, 401):
        ask(client(jwt))


run()
