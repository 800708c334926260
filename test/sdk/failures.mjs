// Errors, as the classes of the SDK for Node, and retries.

import { ASK, adminClient, assert, check, client, closedUpstream, env, forget, openai, raises, run, seen } from './harness.mjs';

const ask = (c, model = 'up/ok', more = {}) => c.chat.completions.create({ model, messages: ASK, ...more });

check('wrong_keys', async () => {
  await forget();
  const key = env.BULKHEAD_KEY;
  for (const wrong of ['sk-nonsense', key.slice(0, -1) + (key.endsWith('a') ? 'b' : 'a'), key + 'x']) {
    const e = await raises(openai.AuthenticationError, { status: 401, code: 'invalid_api_key', requestID: Boolean }, () => ask(client(wrong)));
    assert(!e.message.includes(wrong), 'the key stands in the error');
  }
  assert.deepEqual(await seen(), []);
});

check('unknown_model', () =>
  raises(openai.NotFoundError, { status: 404, code: 'model_not_found', param: 'model', requestID: Boolean }, () => ask(client(), 'none')));

check('wrong_field', () =>
  raises(openai.BadRequestError, { status: 400, param: 'n', requestID: Boolean }, () => ask(client(), 'up/ok', { n: 0 })));

check('upstream_errors', async () => {
  for (const [code, kind] of [
    [400, openai.BadRequestError], [422, openai.UnprocessableEntityError], [429, openai.RateLimitError], [500, openai.InternalServerError],
  ]) {
    for (const stream of [false, true]) {
      const e = await raises(kind, { requestID: Boolean, message: Boolean }, () => ask(client(), `up/status-${code}`, { stream }));
      assert.deepEqual(Object.keys(e.error).sort(), ['code', 'message', 'param', 'type']);
    }
  }
});

check('error_in_the_middle', async () => {
  let text = '';
  await raises(openai.APIError, { message: Boolean }, async () => {
    for await (const c of await ask(client(), 'up/error-mid', { stream: true })) text += c.choices[0]?.delta?.content ?? '';
  });
  assert.equal(text, 'Hello from');
});

check('cut_streams_raise', async () => {
  for (const model of ['up/cut', 'up/cut-clean']) {
    let text = '';
    await assert.rejects(async () => {
      for await (const c of await ask(client(), model, { stream: true })) text += c.choices[0]?.delta?.content ?? '';
    }, undefined, `${model} looks like a whole answer`);
    assert.equal(text, 'Hello from', model);
  }
});

check('timeouts_close_the_upstream', async () => {
  await forget();
  await raises(openai.APIConnectionTimeoutError, {}, () => ask(client(undefined, { timeout: 300 }), 'up/slow-header'));
  await closedUpstream('slow-header');
});

check('sdk_retries_a_failure', async () => {
  await forget();
  const r = await ask(client(undefined, { maxRetries: 2 }), 'up/fail-once:node');
  assert.equal(r.choices[0].message.content, 'Hello from the upstream');
  assert.equal((await seen('fail-once:node')).length, 2);
});

check('sdk_retries_upstream_429', async () => {
  await forget();
  const start = Date.now();
  const e = await raises(openai.RateLimitError, { status: 429 }, () => ask(client(undefined, { maxRetries: 1 }), 'up/status-429'));
  assert(e.headers.get('retry-after') ?? e.headers.get('retry-after-ms'), "the upstream's retry-after was lost");
  assert.equal((await seen('status-429')).length, 2);
  assert(Date.now() - start >= 900, 'the SDK did not wait as it was told');
});

check('rate_limit', async () => {
  const { projects } = adminClient().admin.organization;
  const project = await projects.create({ name: 'limited' });
  const account = await projects.serviceAccounts.create(project.id, { name: 'worker' });
  const rows = (await projects.rateLimits.listRateLimits(project.id)).data;
  const row = rows.find((r) => r.model === '*') ?? rows[0];
  await projects.rateLimits.updateRateLimit(row.id, { project_id: project.id, max_requests_per_1_minute: 1 });
  const c = client(account.api_key.value);
  const e = await raises(openai.RateLimitError, { status: 429, code: 'rate_limit_exceeded', type: 'requests', requestID: Boolean }, async () => {
    for (let i = 0; i < 3; i++) await ask(c);
  });
  assert(Number(e.headers.get('retry-after-ms')) > 0, 'retry-after-ms');
});

await run();
