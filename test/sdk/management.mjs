// The management calls of the SDK for Node.

import { ASK, adminClient, assert, check, client, env, openai, raises, run, shape } from './harness.mjs';

const org = adminClient().admin.organization;
const works = (key, model = 'up/ok') => client(key).chat.completions.create({ model, messages: ASK });
const ids = async (pages) => {
  const all = [];
  for await (const x of pages) all.push(x.id);
  return all;
};

check('projects', async () => {
  const p = shape(await org.projects.create({ name: 'alpha' }),
    { id: 'string', object: '=organization.project', created_at: 'int', archived_at: 'int?', name: '=alpha', status: '=active' });
  assert.equal((await org.projects.retrieve(p.id)).name, 'alpha');
  assert.equal((await org.projects.update(p.id, { name: 'beta' })).name, 'beta');
  for (let i = 0; i < 4; i++) await org.projects.create({ name: `page ${i}` });
  const listed = await ids(org.projects.list({ limit: 2 }));
  assert(listed.includes(p.id) && new Set(listed).size === listed.length, listed.join(' '));
  assert.deepEqual(listed, await ids(org.projects.list({ limit: 100 })));
  shape(await org.projects.archive(p.id), { status: '=archived', archived_at: 'int' });
  assert(!(await ids(org.projects.list())).includes(p.id), 'an archived project is listed');
  assert((await ids(org.projects.list({ include_archived: true }))).includes(p.id), 'not listed when asked for');
});

check('service_accounts_and_keys', async () => {
  const { serviceAccounts, apiKeys } = org.projects;
  const p = await org.projects.create({ name: 'keys' });
  const made = shape(await serviceAccounts.create(p.id, { name: 'robot' }), {
    id: 'string', object: '=organization.project.service_account', name: '=robot', role: '=member', created_at: 'int',
    api_key: {
      id: 'string', object: '=organization.project.service_account.api_key', name: 'string', value: 'string', created_at: 'int', expires_at: 'int?',
    },
  });
  const key = made.api_key.value;
  await works(key);
  assert.deepEqual(await ids(serviceAccounts.list(p.id)), [made.id]);
  assert.equal((await serviceAccounts.update(made.id, { project_id: p.id, name: 'android' })).name, 'android');
  assert.equal((await serviceAccounts.retrieve(made.id, { project_id: p.id })).name, 'android');
  const second = await serviceAccounts.apiKeys.create(made.id, { project_id: p.id, name: 'second', expires_in_seconds: 3600 });
  await works(second.value);

  assert.equal((await ids(apiKeys.list(p.id, { limit: 1 }))).length, 2);
  shape(await apiKeys.retrieve(made.api_key.id, { project_id: p.id }), {
    id: 'string', object: '=organization.project.api_key', name: 'string', redacted_value: 'string', created_at: 'int',
    last_used_at: 'int?', expires_at: 'int?', owner_project_access: '=active',
    owner: { type: '=service_account', service_account: { id: '=' + made.id, name: 'string', created_at: 'int', role: 'string' } },
  });
  shape(await apiKeys.delete(made.api_key.id, { project_id: p.id }), { id: 'string', object: '=organization.project.api_key.deleted', deleted: 'bool' });
  await raises(openai.AuthenticationError, { status: 401 }, () => works(key));
  await works(second.value);
  shape(await serviceAccounts.delete(made.id, { project_id: p.id }),
    { id: '=' + made.id, object: '=organization.project.service_account.deleted', deleted: 'bool' });
  await raises(openai.AuthenticationError, { status: 401 }, () => works(second.value));
});

check('admin_keys', async () => {
  const made = shape(await org.adminAPIKeys.create({ name: 'deputy' }), {
    id: 'string', object: '=organization.admin_api_key', name: '=deputy', value: 'string', redacted_value: 'string', created_at: 'int',
    expires_at: 'int?', last_used_at: 'int?', owner: {},
  });
  const deputy = adminClient(made.value).admin.organization;
  assert((await ids(deputy.projects.list())).includes(env.BULKHEAD_PROJECT));
  assert((await ids(org.adminAPIKeys.list({ limit: 1 }))).includes(made.id));
  shape(await org.adminAPIKeys.delete(made.id), { id: '=' + made.id, object: '=organization.admin_api_key.deleted', deleted: 'bool' });
  await raises(openai.AuthenticationError, { status: 401 }, () => deputy.projects.list());
  await raises(openai.NotFoundError, { status: 404, requestID: Boolean }, () => org.adminAPIKeys.retrieve(made.id));
});

check('model_permissions', async () => {
  const { modelPermissions, serviceAccounts } = org.projects;
  const p = await org.projects.create({ name: 'models' });
  const key = (await serviceAccounts.create(p.id, { name: 'w' })).api_key.value;
  shape(await modelPermissions.retrieve(p.id), { object: '=project.model_permissions', mode: '=deny_list' });
  const denied = await modelPermissions.update(p.id, { mode: 'deny_list', model_ids: ['fast'] });
  assert.deepEqual([denied.mode, denied.model_ids], ['deny_list', ['fast']]);
  await raises(openai.NotFoundError, { code: 'model_not_found' }, () => works(key, 'fast'));
  assert(!(await ids(client(key).models.list())).includes('fast'), 'a denied model is listed');
  shape(await modelPermissions.delete(p.id), { object: '=project.model_permissions.deleted', deleted: 'bool' });
  await works(key, 'fast');
});

check('audit_logs', async () => {
  const p = await org.projects.create({ name: 'audited' });
  const account = await org.projects.serviceAccounts.create(p.id, { name: 'robot' });
  await org.projects.archive(p.id);
  const me = 'key_' + env.BULKHEAD_ADMIN_KEY.split('-')[4];

  const page = shape(await org.auditLogs.list({ project_ids: [p.id] }), { has_more: 'bool', last_id: 'string' });
  assert.deepEqual(page.data.map((e) => e.type), ['project.archived', 'api_key.created', 'service_account.created', 'project.created']);
  for (const e of page.data) {
    shape(e, { id: 'string', effective_at: 'int', actor: { type: '=api_key', api_key: { id: '=' + me, type: '=user' } }, project: { id: '=' + p.id, name: '=audited' } });
  }
  shape(page.data[3]['project.created'], { id: '=' + p.id, data: { name: '=audited', title: '=audited' } });
  shape(page.data[2]['service_account.created'], { id: '=' + account.id, data: { role: '=member' } });

  const here = page.data.map((e) => e.id);
  assert.deepEqual(await ids(org.auditLogs.list({ project_ids: [p.id], limit: 1 })), here);
  assert.deepEqual(await ids(org.auditLogs.list({ project_ids: [p.id, 'proj_none'], event_types: ['project.created', 'project.archived'], limit: 1 })), [here[0], here[3]]);
  assert.deepEqual(await ids(org.auditLogs.list({ resource_ids: [account.id] })), [here[2]]);
  assert.deepEqual(await ids(org.auditLogs.list({ project_ids: [p.id], actor_ids: [me] })), here);
  assert.deepEqual(await ids(org.auditLogs.list({ project_ids: [p.id], effective_at: { gte: p.created_at, lt: p.created_at + 600 } })), here);
  assert.deepEqual(await ids(org.auditLogs.list({ project_ids: [p.id], effective_at: { lt: p.created_at } })), []);
  const everything = await ids(org.auditLogs.list({ limit: 3 }));
  assert(everything.length > here.length && new Set(everything).size === everything.length, everything.join(' '));
  await raises(openai.BadRequestError, { status: 400, param: 'after' }, () => org.auditLogs.list({ after: 'audit_log-none' }));
});

check('people', async () => {
  const invite = shape(await org.invites.create({ email: 'joan@example.com', role: 'reader', projects: [{ id: env.BULKHEAD_PROJECT, role: 'member' }] }), {
    id: 'string', object: '=organization.invite', email: '=joan@example.com', role: '=reader', status: '=pending', created_at: 'int', expires_at: 'int',
    accepted_at: 'int?', token: 'string',
  });
  assert((await ids(org.invites.list({ limit: 1 }))).includes(invite.id));
  const accepted = await fetch(`${env.BULKHEAD_URL}/v1/organization/invites/accept`, {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ token: invite.token, name: 'Joan', password: 'a password for the tests' }),
  });
  assert.equal(accepted.status, 200);
  const { id } = await accepted.json();
  shape(await org.users.retrieve(id), { id: '=' + id, object: '=organization.user', email: '=joan@example.com', name: '=Joan', role: '=reader', added_at: 'int' });
  assert.deepEqual(await ids(org.users.list({ emails: ['joan@example.com'] })), [id]);
  assert.equal((await org.users.update(id, { role: 'owner' })).role, 'owner');
  assert((await ids(org.projects.users.list(env.BULKHEAD_PROJECT))).includes(id));

  const group = shape(await org.groups.create({ name: 'Ops' }), { id: 'string', name: '=Ops', created_at: 'int', group_type: '=group', is_scim_managed: 'bool' });
  shape(await org.groups.users.create(group.id, { user_id: id }), { object: '=group.user', user_id: '=' + id, group_id: '=' + group.id });
  assert.deepEqual(await ids(org.groups.users.list(group.id)), [id]);
  const role = shape(await org.roles.create({ role_name: 'Ops', permissions: ['api.usage.read'] }),
    { id: 'string', object: '=role', name: '=Ops', predefined_role: 'bool', resource_type: '=api.organization' });
  shape(await org.groups.roles.create(group.id, { role_id: role.id }), { object: '=group.role', group: { id: '=' + group.id }, role: { id: '=' + role.id } });
  assert.deepEqual(await ids(org.groups.roles.list(group.id)), [role.id]);
  assert.deepEqual((await ids(org.roles.list({ limit: 2 }))).slice(-1), [role.id]);
  shape(await org.groups.roles.delete(role.id, { group_id: group.id }), { object: '=group.role.deleted', deleted: 'bool' });
  shape(await org.roles.delete(role.id), { id: '=' + role.id, object: '=role.deleted' });
  shape(await org.groups.delete(group.id), { object: '=group.deleted' });
  await raises(openai.ConflictError, { status: 409 }, () => org.users.delete(id)); // the last owner
});

check('unknown_ids_are_404', async () => {
  const lost = (f) => raises(openai.NotFoundError, { status: 404, requestID: Boolean }, f);
  await lost(() => org.projects.retrieve('proj_none'));
  await lost(() => org.projects.serviceAccounts.delete('svc_acct_none', { project_id: env.BULKHEAD_PROJECT }));
  await lost(() => org.projects.apiKeys.retrieve('key_none', { project_id: env.BULKHEAD_PROJECT }));
  await lost(() => org.projects.rateLimits.listRateLimits('proj_none'));
});

await run();
