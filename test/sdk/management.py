"""The SDK's management calls, each answer held strictly against the SDK's own types."""

import json

import openai

from harness import ADMIN_KEY, ASK, BASE, PROJECT, admin_client, check, client, eventually, fetch, raises, run, same, within

c = admin_client()
org = c.admin.organization


def strict(obj, object_name=None):
    """Holds the answer as it came over the wire against obj's type: names, types, constants."""
    type(obj).model_validate_json(c.record.body, strict=True)
    if object_name:
        same(obj.object, object_name, "object")
    return obj


def strict_page(page, kind):
    raw = json.loads(c.record.body)
    same(raw["object"], "list", "object of a list")
    assert type(raw["has_more"]) is bool, "has_more"
    want = (raw["data"][0]["id"], raw["data"][-1]["id"]) if raw["data"] else (None, None)
    same((raw["first_id"], raw["last_id"]), want, "first_id and last_id")
    for item, row in zip(page.data, raw["data"], strict=True):
        type(item).model_validate_json(json.dumps(row), strict=True)
        same(item.object, kind, "object")
    return page


def works(key, model="up/ok"):
    client(key).chat.completions.create(model=model, messages=ASK)


def dead(key):
    with raises(openai.AuthenticationError, 401):
        works(key)


def not_found(call, *args, **more):
    with raises(openai.NotFoundError, 404, request_id=bool):
        call(*args, **more)


@check
def projects():
    p = strict(org.projects.create(name="alpha"), "organization.project")
    same((p.name, p.status, p.archived_at), ("alpha", "active", None), "project")
    within(p.created_at, 1_700_000_000, 5_000_000_000, "created_at in seconds")
    same(strict(org.projects.retrieve(p.id)).to_dict(), p.to_dict(), "retrieved")
    same(strict(org.projects.update(p.id, name="beta")).name, "beta", "updated name")
    same(org.projects.retrieve(p.id).name, "beta", "name afterwards")
    assert p.id in [x.id for x in org.projects.list()], "not listed"
    assert PROJECT in [x.id for x in org.projects.list()], "the first project is not listed"


@check
def paging():
    made = [org.projects.create(name=f"page {i}").id for i in range(5)]
    first = strict_page(org.projects.list(limit=2), "organization.project")
    same((len(first.data), first.has_more), (2, True), "first page")
    listed = [p.id for p in org.projects.list(limit=2)]
    same(len(listed), len(set(listed)), "a project is listed twice")
    same(sorted(set(made) - set(listed)), [], "projects that paging missed")
    same(listed, [p.id for p in org.projects.list(limit=100)], "the order of small and large pages")
    for bad in ({"limit": 0}, {"limit": 101}):
        with raises(openai.BadRequestError, 400, param="limit"):
            org.projects.list(**bad)


@check
def archive():
    p = org.projects.create(name="old")
    key = org.projects.service_accounts.create(p.id, name="w").api_key.value
    works(key)
    a = strict(org.projects.archive(p.id))
    same(a.status, "archived", "status")
    assert a.archived_at >= p.created_at, "archived_at"
    try:
        works(key)
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        pass
    else:
        raise AssertionError("a key of an archived project works")
    assert p.id not in [x.id for x in org.projects.list(limit=100)], "an archived project is listed"
    assert p.id in [x.id for x in org.projects.list(limit=100, include_archived=True)], "not listed when asked for"
    same(org.projects.retrieve(p.id).status, "archived", "status afterwards")


@check
def service_accounts():
    accounts = org.projects.service_accounts
    p = org.projects.create(name="accounts")
    made = strict(accounts.create(p.id, name="robot"), "organization.project.service_account")
    same((made.name, made.role, made.api_key.object),
         ("robot", "member", "organization.project.service_account.api_key"), "service account")
    assert made.api_key.value.startswith("sk-bh-live-"), "not a live key"
    same(made.api_key.expires_at, None, "expires_at")
    works(made.api_key.value)
    same(strict(accounts.retrieve(made.id, project_id=p.id)).name, "robot", "name")
    same(strict(accounts.update(made.id, project_id=p.id, name="android")).name, "android", "new name")
    same(strict(accounts.update(made.id, project_id=p.id, role="owner")).role, "owner", "new role")
    page = strict_page(accounts.list(p.id), "organization.project.service_account")
    same([(a.id, a.name, a.role) for a in page.data], [(made.id, "android", "owner")], "list")
    for i in range(3):
        accounts.create(p.id, name=f"more {i}")
    same(len(list(accounts.list(p.id, limit=1))), 4, "accounts over pages of one")

    extra = strict(accounts.api_keys.create(made.id, project_id=p.id, name="second", expires_in_seconds=3600))
    same(extra.name, "second", "name of a second key")
    within(extra.expires_at - extra.created_at, 3590, 3610, "expires_at")
    works(extra.value)

    gone = strict(accounts.delete(made.id, project_id=p.id))
    same((gone.id, gone.deleted), (made.id, True), "deleted")
    dead(made.api_key.value)
    dead(extra.value)
    not_found(accounts.retrieve, made.id, project_id=p.id)


@check
def service_account_without_a_key():
    p = org.projects.create(name="bare")
    made = strict(org.projects.service_accounts.create(p.id, name="bare", create_service_account_only=True))
    same((made.role, made.api_key), ("none", None), "service account")
    with raises(openai.BadRequestError, 400):
        org.projects.service_accounts.create(p.id, name="x", create_service_account_only=True, expires_in_seconds=60)


@check
def project_keys():
    keys = org.projects.api_keys
    p = org.projects.create(name="keys")
    account = org.projects.service_accounts.create(p.id, name="owner of keys", expires_in_seconds=7200)
    page = strict_page(keys.list(p.id), "organization.project.api_key")
    same(len(page.data), 1, "number of keys")
    k = strict(keys.retrieve(account.api_key.id, project_id=p.id), "organization.project.api_key")
    same(page.data[0].id, k.id, "id")
    same((k.owner.type, k.owner.service_account.id, k.owner_project_access),
         ("service_account", account.id, "active"), "owner")
    assert k.redacted_value not in ("", account.api_key.value), "redacted_value"
    assert account.api_key.value.encode() not in c.record.body, "the key was shown again"
    within(k.expires_at - k.created_at, 7190, 7210, "expires_at")
    sooner = strict(keys.update(k.id, project_id=p.id, expires_in_seconds=600))
    within(sooner.expires_at - k.created_at, 590, 700, "new expires_at")
    works(account.api_key.value)
    same(len(keys.list(p.id, owner_project_access="any").data), 1, "keys of any owner")

    gone = strict(keys.delete(k.id, project_id=p.id))
    same((gone.id, gone.deleted), (k.id, True), "deleted")
    dead(account.api_key.value)
    not_found(keys.retrieve, k.id, project_id=p.id)
    same(keys.list(p.id).data, [], "keys afterwards")


@check
def first_keys_of_the_company():
    for k in strict_page(org.projects.api_keys.list(PROJECT), "organization.project.api_key").data:
        assert k.owner.type, "a key without an owner"
    same(len(org.projects.api_keys.list(PROJECT).data), 2, "live and test key")


@check
def key_expires():
    p = org.projects.create(name="short")
    key = org.projects.service_accounts.create(p.id, name="w", expires_in_seconds=1).api_key.value

    def refused():
        try:
            works(key)
        except openai.AuthenticationError:
            return True
        return False

    eventually(5, "the key expires", refused)


@check
def admin_keys():
    keys = org.admin_api_keys
    made = strict(keys.create(name="deputy", expires_in_seconds=3600), "organization.admin_api_key")
    same(made.name, "deputy", "name")
    within(made.expires_at - made.created_at, 3590, 3610, "expires_at")
    assert made.redacted_value != made.value, "redacted_value"
    deputy = admin_client(made.value).admin.organization
    assert PROJECT in [p.id for p in deputy.projects.list()], "the new admin key sees nothing"
    same(strict(keys.retrieve(made.id)).id, made.id, "retrieved")
    assert made.value.encode() not in c.record.body, "the key was shown again"
    for i in range(3):
        keys.create(name=f"more {i}")
    strict_page(keys.list(limit=2), "organization.admin_api_key")
    up = [k.id for k in keys.list(limit=2)]
    assert len(up) >= 5 and made.id in up, f"paging saw {len(up)} keys"
    same([k.id for k in keys.list(limit=2, order="desc")], up[::-1], "the other order")
    gone = strict(keys.delete(made.id), "organization.admin_api_key.deleted")
    same(gone.deleted, True, "deleted")
    with raises(openai.AuthenticationError, 401):
        deputy.projects.list()
    not_found(keys.retrieve, made.id)


@check
def rate_limits():
    limits = org.projects.rate_limits
    p = org.projects.create(name="rates")
    page = strict_page(limits.list_rate_limits(p.id), "project.rate_limit")
    assert page.data, "no rate limits"
    row = next((r for r in page.data if r.model == "*"), page.data[0])
    new = strict(limits.update_rate_limit(row.id, project_id=p.id, max_requests_per_1_minute=77, max_tokens_per_1_minute=8888))
    same((new.id, new.max_requests_per_1_minute, new.max_tokens_per_1_minute), (row.id, 77, 8888), "updated")
    new = limits.update_rate_limit(row.id, project_id=p.id, max_requests_per_1_minute=78)
    same((new.max_requests_per_1_minute, new.max_tokens_per_1_minute), (78, 8888), "updated in part")
    after = {r.id: r.max_requests_per_1_minute for r in limits.list_rate_limits(p.id)}
    same(after[row.id], 78, "listed afterwards")
    with raises(openai.BadRequestError, 400, param="max_requests_per_1_minute"):
        limits.update_rate_limit(row.id, project_id=p.id, max_requests_per_1_minute=-1)
    not_found(limits.update_rate_limit, "rl-none", project_id=p.id, max_requests_per_1_minute=1)


@check
def model_permissions():
    perms = org.projects.model_permissions
    p = org.projects.create(name="models")
    key = org.projects.service_accounts.create(p.id, name="w").api_key.value
    same((strict(perms.retrieve(p.id)).mode, perms.retrieve(p.id).api_model_ids), ("deny_list", []), "nothing set")
    works(key, "fast")
    assert "fast" in [m.id for m in client(key).models.list()], "not listed before"

    denied = strict(perms.update(p.id, mode="deny_list", model_ids=["fast", "up/ok"]), "project.model_permissions")
    same((denied.mode, sorted(denied.api_model_ids)), ("deny_list", ["fast", "up/ok"]), "policy")
    for model in ("fast", "up/ok"):
        with raises(openai.NotFoundError, 404, code="model_not_found"):
            works(key, model)
        assert model not in [m.id for m in client(key).models.list()], f"{model} is listed"
        with raises(openai.NotFoundError, 404, code="model_not_found"):
            client(key).models.retrieve(model)
    works(key, "up/tools")
    works(client().api_key, "up/ok")  # the company's first project is not concerned

    perms.update(p.id, mode="allow_list", model_ids=["up/ok"])
    works(key, "up/ok")
    with raises(openai.NotFoundError, 404, code="model_not_found"):
        works(key, "sandbox/echo")
    # The route fast has up/ok among its targets and goes there only.
    same([m.id for m in client(key).models.list() if m.id not in ("up/ok", "fast")], [], "models listed beside the only one allowed")
    works(key, "fast")

    gone = strict(perms.delete(p.id), "project.model_permissions.deleted")
    same(gone.deleted, True, "deleted")
    works(key, "fast")


@check
def credentials():
    url = BASE + "/organization/credentials"
    status, _, made = fetch("POST", url, ADMIN_KEY, {"provider": "groq", "secret": "gsk-secret-canary"})
    assert status in (200, 201), (status, made)
    same(made["provider"], "groq", "provider")
    assert "gsk-secret-canary" not in json.dumps(made), "the secret was shown"
    status, _, listed = fetch("GET", url, ADMIN_KEY)
    same((status, listed["object"]), (200, "list"), "list")
    assert made["id"] in [x["id"] for x in listed["data"]], "not listed"
    assert "gsk-secret-canary" not in json.dumps(listed), "the secret was shown"
    status, _, gone = fetch("DELETE", f"{url}/{made['id']}", ADMIN_KEY)
    same((status, gone["id"], gone["deleted"]), (200, made["id"], True), "deleted")
    same(fetch("DELETE", f"{url}/{made['id']}", ADMIN_KEY)[0], 404, "deleted again")
    status, _, wrong = fetch("POST", url, ADMIN_KEY, {"provider": "none", "secret": "x"})
    same((status, wrong["error"]["param"]), (400, "provider"), "unknown provider")


@check
def audit_logs():
    logs = org.audit_logs
    p = org.projects.create(name="audited")
    account = org.projects.service_accounts.create(p.id, name="robot")
    org.projects.update(p.id, name="audited twice")
    limits = org.projects.rate_limits
    limit = next(r for r in limits.list_rate_limits(p.id) if r.model != "*")
    limits.update_rate_limit(limit.id, project_id=p.id, max_requests_per_1_minute=5)
    org.projects.api_keys.delete(account.api_key.id, project_id=p.id)
    org.projects.archive(p.id)

    of_p = logs.list(project_ids=[p.id])
    raw = json.loads(c.record.body)
    same((raw["object"], raw["has_more"], raw["first_id"], raw["last_id"]),
         ("list", False, of_p.data[0].id, of_p.data[-1].id), "list")
    for item, row in zip(of_p.data, raw["data"], strict=True):
        type(item).model_validate_json(json.dumps(row), strict=True)  # each of these types OpenAI has too
        same((item.actor.type, item.actor.api_key.id), ("api_key", "key_" + ADMIN_KEY.split("-")[4]), "actor")
        same(item.project.id, p.id, "project")
        within(item.effective_at, p.created_at, p.created_at + 600, "effective_at in seconds")
    same([e.type for e in of_p.data],
         ["project.archived", "api_key.deleted", "rate_limit.updated", "project.updated",
          "api_key.created", "service_account.created", "project.created"], "newest first")
    by_type = {e.type: e for e in of_p.data}
    same((by_type["project.created"].project_created.id, by_type["project.created"].project_created.data.title),
         (p.id, "audited"), "project.created")
    same(by_type["project.updated"].project_updated.changes_requested.title, "audited twice", "project.updated")
    rate = by_type["rate_limit.updated"].rate_limit_updated
    same((rate.id, rate.changes_requested.max_requests_per_1_minute), (limit.model, 5), "rate_limit.updated")
    same((by_type["service_account.created"].service_account_created.id, by_type["service_account.created"].service_account_created.data.role),
         (account.id, "member"), "service_account.created")
    same((by_type["api_key.created"].api_key_created.id, by_type["api_key.deleted"].api_key_deleted.id),
         (account.api_key.id, account.api_key.id), "api_key")
    same(by_type["project.archived"].project_archived.id, p.id, "project.archived")

    # Each filter, and together; the SDK turns the pages.
    ids = lambda **filters: [e.id for e in logs.list(limit=2, **filters)]
    here = [e.id for e in of_p.data]
    same(ids(project_ids=[p.id]), here, "pages of two")
    same(ids(project_ids=[p.id], event_types=["project.created", "project.archived"]), [here[0], here[-1]], "event_types")
    same(ids(resource_ids=[account.id]), [by_type["service_account.created"].id], "resource_ids")
    same(ids(project_ids=[p.id], actor_ids=["key_nobody"]), [], "actor_ids")
    assert set(here) <= set(ids(actor_ids=["key_" + ADMIN_KEY.split("-")[4]])), "actor_ids"
    same(ids(actor_emails=["somebody@example.com"]), [], "actor_emails")
    same(ids(project_ids=[p.id], effective_at={"gte": p.created_at, "lte": p.created_at + 600}), here, "effective_at")
    same(ids(project_ids=[p.id], effective_at={"gt": p.created_at + 600}), [], "effective_at later")
    same(ids(project_ids=[p.id], effective_at={"lt": p.created_at}), [], "effective_at before")
    back = logs.list(project_ids=[p.id], before=here[-1], limit=2)
    same([e.id for e in back.data], here[-3:-1], "before")
    everything = ids()
    same(len(everything), len(set(everything)), "a row is listed twice")
    assert len(everything) > len(here) and set(here) <= set(everything), "rows are missing"
    with raises(openai.BadRequestError, 400, param="after"):
        logs.list(after="audit_log-none")
    with raises(openai.BadRequestError, 400, param="limit"):
        logs.list(limit=0)
    with raises(openai.PermissionDeniedError, 403):
        admin_client(client().api_key).admin.organization.audit_logs.list()


def strict_next(page):
    """A list that goes on where next says."""
    raw = json.loads(c.record.body)
    same(raw["object"], "list", "object of a list")
    assert type(raw["has_more"]) is bool and (raw["next"] is None) == (not raw["has_more"]), "has_more and next"
    for item, row in zip(page.data, raw["data"], strict=True):
        type(item).model_validate_json(json.dumps(row), strict=True)
    return page


def person(email, role="reader", projects=()):
    """Invites somebody, who accepts; the answer is the user."""
    i = org.invites.create(email=email, role=role, projects=list(projects))
    body = {"token": i.token, "name": "Ada", "password": "a password for the tests"}
    status, _, answer = fetch("POST", BASE + "/organization/invites/accept", body=body)
    same(status, 200, "accepting")
    return org.users.retrieve(answer["id"])


@check
def users_and_invites():
    i = strict(org.invites.create(email="New@Example.com", role="reader", projects=[{"id": PROJECT, "role": "member"}]), "organization.invite")
    same((i.email, i.role, i.status, i.projects[0].id, i.projects[0].role), ("new@example.com", "reader", "pending", PROJECT, "member"), "invite")
    within(i.expires_at - i.created_at, 7 * 86400, 7 * 86400, "life")
    assert i.token.startswith("sk-bh-invite-"), "token"
    got = strict(org.invites.retrieve(i.id), "organization.invite")
    same((got.id, got.email), (i.id, i.email), "retrieved")
    assert "token" not in json.loads(c.record.body), "the token is shown twice"
    strict_page(org.invites.list(limit=1), "organization.invite")
    assert i.id in [x.id for x in org.invites.list()], "not listed"
    same(strict(org.invites.delete(i.id), "organization.invite.deleted").deleted, True, "deleted")
    not_found(org.invites.retrieve, i.id)

    u = strict(person("ada@example.com", projects=[{"id": PROJECT, "role": "member"}]), "organization.user")
    same((u.email, u.name, u.role), ("ada@example.com", "Ada", "reader"), "user")
    strict_page(org.users.list(limit=1), "organization.user")
    same([x.id for x in org.users.list(emails=["ada@example.com", "nobody@example.com"])], [u.id], "by email")
    same(strict(org.users.update(u.id, role="manager")).role, "manager", "role")
    same(strict(org.users.update(u.id, role_id="role-member")).role, "reader", "role by its id")
    with raises(openai.ConflictError, 409):
        org.invites.create(email="ada@example.com", role="reader")

    in_project = org.projects.users
    strict_page(in_project.list(PROJECT), "organization.project.user")
    same(strict(in_project.retrieve(u.id, project_id=PROJECT), "organization.project.user").role, "member", "role in the project")
    same(strict(in_project.update(u.id, project_id=PROJECT, role="owner")).role, "owner", "updated")
    same(strict(in_project.delete(u.id, project_id=PROJECT), "organization.project.user.deleted").deleted, True, "deleted")
    not_found(in_project.retrieve, u.id, project_id=PROJECT)
    same(strict(in_project.create(PROJECT, role="member", email="ada@example.com"), "organization.project.user").id, u.id, "added")
    same(strict(org.users.delete(u.id), "organization.user.deleted").deleted, True, "deleted")
    not_found(org.users.retrieve, u.id)


@check
def groups_and_roles():
    u = person("grace@example.com")
    g = strict(org.groups.create(name="Support"))
    same((g.name, g.group_type, g.is_scim_managed), ("Support", "group", False), "group")
    same(strict(org.groups.retrieve(g.id)).id, g.id, "retrieved")
    same(strict(org.groups.update(g.id, name="Help")).name, "Help", "updated")
    strict_next(org.groups.list(limit=1))
    strict(org.groups.users.create(g.id, user_id=u.id), "group.user")
    same([x.id for x in strict_next(org.groups.users.list(g.id))], [u.id], "users")
    same(strict(org.groups.users.retrieve(u.id, group_id=g.id)).id, u.id, "user of the group")

    for at, given, where in (
        (org.roles, lambda kind: getattr(org, kind).roles, {}),
        (org.projects.roles, lambda kind: getattr(org.projects, kind).roles, {"project_id": PROJECT}),
    ):
        first = [PROJECT] if where else []
        r = strict(at.create(*first, role_name="Reader", permissions=["api.usage.read"], description="reads"), "role")
        same((r.name, r.permissions, r.predefined_role), ("Reader", ["api.usage.read"], False), "role")
        same(r.resource_type, "api.project" if where else "api.organization", "resource")
        same(strict(at.retrieve(r.id, **where)).to_dict(), r.to_dict(), "retrieved")
        same(strict(at.update(r.id, **where, permissions=["api.usage.read", "api.groups.read"])).permissions, ["api.usage.read", "api.groups.read"], "updated")
        names = [(x.name, x.predefined_role) for x in at.list(*first, limit=2)]
        same(names, [("owner", True), ("manager", True), ("member", True), ("Reader", False)], "all roles, page by page")
        for kind, whom in (("users", {"user_id": u.id}), ("groups", {"group_id": g.id})):
            roles = given(kind)
            one = list(whom.values())[0]
            made = strict(roles.create(one, **where, role_id=r.id), kind[:-1] + ".role")
            same((made.role.id, getattr(made, kind[:-1]).id), (r.id, one), "given")
            assert r.id in [x.id for x in strict_next(roles.list(one, **where))], "not listed"
            same(strict(roles.retrieve(r.id, **whom, **where)).assignment_sources[0].principal_id, one, "source")
            same(strict(roles.delete(r.id, **whom, **where)).deleted, True, "taken")
            not_found(roles.retrieve, r.id, **whom, **where)
        same(strict(at.delete(r.id, **where), "role.deleted").deleted, True, "deleted")
        with raises(openai.BadRequestError, 400, param="permissions"):
            at.create(*first, role_name="x", permissions=["api.everything"])

    p = org.projects.groups
    strict(p.create(PROJECT, group_id=g.id, role="role-project-member"), "project.group")
    same([x.group_id for x in strict_next(p.list(PROJECT))], [g.id], "groups of the project")
    same(strict(p.retrieve(g.id, project_id=PROJECT), "project.group").group_name, "Help", "retrieved")
    same(strict(p.delete(g.id, project_id=PROJECT), "project.group.deleted").deleted, True, "removed")
    strict(org.groups.users.delete(u.id, group_id=g.id), "group.user.deleted")
    same(strict(org.groups.delete(g.id), "group.deleted").deleted, True, "deleted")
    not_found(org.groups.retrieve, g.id)


@check
def unknown_ids_are_404():
    projects = org.projects
    not_found(projects.retrieve, "proj_none")
    not_found(projects.update, "proj_none", name="x")
    not_found(projects.archive, "proj_none")
    not_found(projects.service_accounts.list, "proj_none")
    not_found(projects.service_accounts.create, "proj_none", name="x")
    not_found(projects.service_accounts.retrieve, "svc_acct_none", project_id=PROJECT)
    not_found(projects.api_keys.retrieve, "key_none", project_id=PROJECT)
    not_found(projects.api_keys.delete, "key_none", project_id=PROJECT)
    not_found(projects.rate_limits.list_rate_limits, "proj_none")
    not_found(projects.model_permissions.retrieve, "proj_none")
    not_found(org.admin_api_keys.retrieve, "key_none")
    not_found(org.admin_api_keys.delete, "key_none")
    not_found(org.users.retrieve, "user_none")
    not_found(org.users.roles.list, "user_none")
    not_found(org.groups.users.list, "group-none")
    not_found(org.roles.delete, "role-none")
    not_found(org.projects.roles.list, "proj_none")


@check
def wrong_fields_are_400():
    for call, param in (
        (lambda: org.projects.create(name=""), "name"),
        (lambda: org.projects.create(name=7), "name"),
        (lambda: org.projects.create(name="x", extra_body={"owner": "me"}), "owner"),
        (lambda: org.projects.service_accounts.create(PROJECT, name=""), "name"),
        (lambda: org.projects.service_accounts.create(PROJECT, name="x", expires_in_seconds=0), "expires_in_seconds"),
        (lambda: org.admin_api_keys.create(name=""), "name"),
        (lambda: org.projects.model_permissions.update(PROJECT, mode="some", model_ids=[]), "mode"),
    ):
        with raises(openai.BadRequestError, 400, param=param):
            call()


run()
