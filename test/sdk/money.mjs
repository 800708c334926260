// The SDK for Node's calls about money.

import { ASK, adminClient, assert, check, client, env, eventually, openai, raises, run, shape } from './harness.mjs';

const org = adminClient().admin.organization;
const project = env.BULKHEAD_PROJECT;
const now = Math.floor(Date.now() / 1000);
const span = { start_time: now - 86_400, end_time: now + 86_400 };
const month = { currency: 'USD', interval: 'month' };
const hook = { type: 'webhook', url: 'https://hooks.example.com/spend' };
const ids = async (pages) => {
  const all = [];
  for await (const x of pages) all.push(x.id);
  return all;
};

check('spend_limits', async () => {
  const limit = { object: 'string', threshold_amount: 'int', currency: '=USD', interval: '=month', enforcement: { status: '=enforcing' } };
  await raises(openai.NotFoundError, { status: 404 }, () => org.spendLimit.retrieve());
  const made = shape(await org.spendLimit.update({ threshold_amount: 12_345, ...month }), { ...limit, object: '=organization.spend_limit' });
  assert.equal(made.threshold_amount, 12_345);
  assert.equal((await org.spendLimit.retrieve()).threshold_amount, 12_345);
  shape(await org.spendLimit.delete(), { object: '=organization.spend_limit.deleted', deleted: 'bool' });
  await raises(openai.NotFoundError, { status: 404 }, () => org.spendLimit.retrieve());

  const { spendLimit } = org.projects;
  shape(await spendLimit.update(project, { threshold_amount: 100, ...month }), { ...limit, object: '=project.spend_limit' });
  shape(await spendLimit.retrieve(project), { ...limit, object: '=project.spend_limit' });
  shape(await spendLimit.delete(project), { object: '=project.spend_limit.deleted', deleted: 'bool' });
  await raises(openai.NotFoundError, { status: 404 }, () => spendLimit.retrieve('proj_nobody'));
  await raises(openai.BadRequestError, { status: 400, param: 'threshold_amount' }, () => org.spendLimit.update({ threshold_amount: 0, ...month }));
});

check('spend_alerts', async () => {
  const alert = {
    id: 'string', threshold_amount: 'int', currency: '=USD', interval: '=month',
    notification_channel: { type: '=webhook', url: '=' + hook.url },
  };
  const body = { threshold_amount: 90_000_000, notification_channel: hook, ...month };
  const { spendAlerts } = org;
  const made = shape(await spendAlerts.create(body), { ...alert, object: '=organization.spend_alert' });
  assert.match(made.notification_channel.secret, /^whsec_/);
  shape(await spendAlerts.retrieve(made.id), { ...alert, id: '=' + made.id });
  assert.equal((await spendAlerts.update(made.id, { ...body, threshold_amount: 1_000_000 })).threshold_amount, 1_000_000);
  const second = await spendAlerts.create(body);
  assert.deepEqual(await ids(spendAlerts.list({ limit: 1 })), [made.id, second.id]);
  for (const id of [made.id, second.id]) {
    shape(await spendAlerts.delete(id), { id: '=' + id, object: '=organization.spend_alert.deleted', deleted: 'bool' });
  }
  await raises(openai.NotFoundError, { status: 404 }, () => spendAlerts.retrieve(made.id));

  const alerts = org.projects.spendAlerts;
  const own = shape(await alerts.create(project, body), { ...alert, object: '=project.spend_alert' });
  shape(await alerts.retrieve(own.id, { project_id: project }), { ...alert, id: '=' + own.id });
  assert.deepEqual(await ids(alerts.list(project)), [own.id]);
  assert(!(await ids(spendAlerts.list())).includes(own.id), 'an alert of a project is listed with the company\'s');
  shape(await alerts.delete(own.id, { project_id: project }), { id: '=' + own.id, object: '=project.spend_alert.deleted', deleted: 'bool' });
  await raises(openai.BadRequestError, { status: 400, param: 'notification_channel.type' }, () => spendAlerts.create(
    { threshold_amount: 1, notification_channel: { type: 'email', recipients: ['finance@example.com'] }, ...month }));
});

check('usage_and_costs', async () => {
  const before = await org.usage.costs(span);
  const sum = (page) => page.data.flatMap((b) => b.results).reduce((n, r) => n + Math.round(r.amount.value * 1e9), 0);
  for (let i = 0; i < 3; i++) await client().chat.completions.create({ model: 'sandbox/echo', messages: ASK });
  await client().embeddings.create({ model: 'up/ok', input: 'some text' });
  await client().moderations.create({ model: 'up/ok', input: 'some text' });
  const counted = async (kind, more = {}) => (await org.usage[kind]({ ...span, ...more })).data.flatMap((b) => b.results)
    .reduce((n, r) => n + r.num_model_requests, 0);
  await eventually(10_000, 'the ledger has it', async () => (await counted('moderations')) >= 1 && (await counted('completions')) >= 3);
  assert(sum(await org.usage.costs(span)) > sum(before), 'the costs have not grown');

  const page = shape(await org.usage.completions({ ...span, group_by: ['project_id', 'model', 'batch'] }), { object: '=page', has_more: 'bool', data: {} });
  assert.equal(page.data.length, 3, 'buckets of three days');
  const result = page.data.flatMap((b) => b.results).find((r) => r.model === 'sandbox/echo');
  shape(result, {
    object: '=organization.usage.completions.result', input_tokens: 'int', output_tokens: 'int', num_model_requests: 'int', project_id: '=' + project, batch: 'bool',
  });
  assert.equal(await counted('completions', { project_ids: ['proj_nobody'] }), 0);
  assert((await counted('embeddings')) >= 1, 'no embeddings');
  const costs = await org.usage.costs({ ...span, group_by: ['line_item'] });
  const line = costs.data.flatMap((b) => b.results).find((r) => r.line_item === 'sandbox/echo');
  shape(line, { object: '=organization.costs.result', line_item: '=sandbox/echo', quantity: 'int', quantity_unit: '=tokens', amount: { currency: '=usd' } });

  // A page at a time.
  let pages = 0;
  let requests = 0;
  for (let next; pages < 100;) {
    const got = await org.usage.completions({ ...span, bucket_width: '1h', limit: 10, ...(next && { page: next }) });
    requests += got.data.flatMap((b) => b.results).reduce((n, r) => n + r.num_model_requests, 0);
    pages++;
    next = got.next_page;
    if (!got.has_more) break;
  }
  assert.deepEqual([pages > 3, requests], [true, await counted('completions')]);
});

await run();
