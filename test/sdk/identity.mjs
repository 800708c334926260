// Workload identity and the administration of people, by the SDK for Node, with tokens of an issuer of the test.

import { ASK, BASE, OpenAI, adminClient, assert, check, env, openai, raises, run } from './harness.mjs';

const org = adminClient().admin.organization;
const AUDIENCE = 'bulkhead:' + env.BULKHEAD_ADMIN_KEY.split('-')[3];
const w = {};

const token = async (sub) => (await fetch(`${env.TOKENS_URL}?sub=${sub}&aud=${AUDIENCE}`)).text();

const all = async (pages) => {
  const ids = [];
  for await (const o of pages) ids.push(o.id);
  return ids;
};

// The SDK exchanges at OpenAI's own address, and at no other; the client's fetch puts the gateway's in its place.
const exchanges = [];
const workload = (sub) =>
  new OpenAI({
    baseURL: BASE,
    maxRetries: 0,
    workloadIdentity: { identityProviderId: w.provider, serviceAccountId: w.account, provider: { tokenType: 'jwt', getToken: () => token(sub) } },
    fetch: (url, init) => {
      if (!String(url).startsWith('https://auth.openai.com/')) return fetch(url, init);
      exchanges.push(sub);
      return fetch(BASE + '/oauth/token', init);
    },
  });

const ask = (c) => c.chat.completions.create({ model: 'up/ok', messages: ASK });

check('providers', async () => {
  const jwks = await (await fetch(env.TOKENS_URL + '/jwks')).json();
  const p = await org.workloadIdentityProviders.create({
    name: 'CI', type: 'oidc', issuer: env.ISSUER, audience: AUDIENCE, verification: { type: 'uploaded_jwks', jwks },
  });
  assert.equal(p.object, 'organization.workload_identity_provider');
  w.provider = p.id;
  assert.deepEqual(await org.workloadIdentityProviders.retrieve(p.id), p);
  assert.equal((await org.workloadIdentityProviders.update(p.id, { name: 'Jobs' })).name, 'Jobs');
  assert.deepEqual(await all(org.workloadIdentityProviders.list({ limit: 1 })), [p.id]);
});

check('federation_rules', async () => {
  w.account = (await org.projects.serviceAccounts.create(env.BULKHEAD_PROJECT, { name: 'ci' })).id;
  const rules = org.workloadIdentityProviders.federationRules;
  const r = await rules.create(w.provider, { attribute_matchers: { sub: 'job' }, project_id: env.BULKHEAD_PROJECT, service_account_id: w.account });
  assert.equal(r.object, 'organization.workload_identity_federation_rule');
  w.rule = r.id;
  assert.deepEqual(await rules.retrieve(r.id, { workload_identity_provider_id: w.provider }), r);
  assert.deepEqual(await all(rules.list(w.provider)), [r.id]);
});

check('workload_identity', async () => {
  const c = workload('job');
  for (let i = 0; i < 3; i++) assert.equal((await ask(c)).choices[0].message.content, 'Hello from the upstream');
  assert.deepEqual(exchanges, ['job'], 'one exchange for three calls');
  let text = '';
  for await (const chunk of await c.chat.completions.create({ model: 'up/ok', messages: ASK, stream: true })) text += chunk.choices[0]?.delta?.content ?? '';
  assert.equal(text, 'Hello from the upstream');
});

check('bearer', async () => {
  const c = new OpenAI({ baseURL: BASE, maxRetries: 0, apiKey: await token('job') });
  assert.equal((await ask(c)).usage.total_tokens, 14);
});

check('nobody', async () => {
  const c = workload('nobody');
  await assert.rejects(ask(c), (e) => e instanceof openai.OAuthError && e.status === 400);
});

check('rule_disabled', async () => {
  const c = workload('job');
  await ask(c);
  await org.workloadIdentityProviders.federationRules.update(w.rule, { workload_identity_provider_id: w.provider, enabled: false });
  await assert.rejects(ask(c), (e) => e instanceof openai.APIError && [400, 401, 403].includes(e.status));
  await org.workloadIdentityProviders.federationRules.delete(w.rule, { workload_identity_provider_id: w.provider });
  await org.workloadIdentityProviders.delete(w.provider);
  assert.deepEqual(await all(org.workloadIdentityProviders.list()), []);
});

check('invites_and_users', async () => {
  const i = await org.invites.create({ email: 'ann@example.com', role: 'reader', projects: [{ id: env.BULKHEAD_PROJECT, role: 'member' }] });
  assert.equal(i.object, 'organization.invite');
  assert.ok((await all(org.invites.list())).includes(i.id));
  const accepted = await fetch(BASE + '/organization/invites/accept', {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ token: i.token, name: 'Ann', password: 'a long enough password' }),
  });
  assert.equal(accepted.status, 200);
  for await (const u of org.users.list()) if (u.email === 'ann@example.com') w.user = u.id;
  const user = await org.users.retrieve(w.user);
  assert.deepEqual([user.object, user.name, user.role], ['organization.user', 'Ann', 'reader']);
  await raises(openai.NotFoundError, { status: 404 }, () => org.users.retrieve('user_none'));
  const lost = await org.invites.create({ email: 'bob@example.com', role: 'reader' });
  assert.equal((await org.invites.delete(lost.id)).deleted, true);
});

check('roles_and_groups', async () => {
  const role = await org.roles.create({ role_name: 'reads usage', permissions: ['api.usage.read'] });
  const group = await org.groups.create({ name: 'Finance' });
  await org.groups.users.create(group.id, { user_id: w.user });
  assert.deepEqual(await all(org.groups.users.list(group.id)), [w.user]);
  await org.groups.roles.create(group.id, { role_id: role.id });
  assert.deepEqual(await all(org.groups.roles.list(group.id)), [role.id]);
  await org.users.roles.create(w.user, { role_id: role.id });
  assert.ok((await all(org.users.roles.list(w.user))).includes(role.id));
  await org.users.roles.delete(role.id, { user_id: w.user });
  await org.groups.roles.delete(role.id, { group_id: group.id });
  await org.groups.users.delete(w.user, { group_id: group.id });
  assert.equal((await org.groups.delete(group.id)).deleted, true);
  assert.equal((await org.roles.delete(role.id)).deleted, true);
  assert.equal((await org.users.delete(w.user)).deleted, true);
});

await run();
