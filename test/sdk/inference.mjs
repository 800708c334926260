// Answers and streams, by the SDK for Node.

import { ASK, assert, check, client, closedUpstream, env, eventually, forget, last, openai, raises, run, seen, textOf } from './harness.mjs';

const HELLO = 'Hello from the upstream';
const weather = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
};
const ask = (model, more = {}, options = {}) =>
  client().chat.completions.create({ model, messages: ASK, ...more }, options);

check('chat', async () => {
  const { data, response, request_id } = await ask('up/ok').withResponse();
  assert.equal(data.choices[0].message.content, HELLO);
  assert.deepEqual([data.usage.prompt_tokens, data.usage.completion_tokens, data.usage.total_tokens], [10, 4, 14]);
  assert.equal(data._request_id, request_id);
  assert(request_id && !request_id.includes('upstream'), `request id ${request_id}`);
  assert(Number(response.headers.get('openai-processing-ms')) >= 0);
  assert.equal(response.headers.get('x-bulkhead-provider'), 'up');
  assert.equal(response.headers.get('x-bulkhead-model'), 'ok');
});

check('sandbox_with_test_key', async () => {
  const c = client(env.BULKHEAD_TEST_KEY);
  const r = await c.chat.completions.create({ model: 'sandbox/echo', messages: ASK });
  assert(r.choices[0].message.content);
  const { response } = await c.chat.completions.create({ model: 'up/ok', messages: ASK }).withResponse();
  assert.equal(response.headers.get('x-bulkhead-provider'), 'sandbox');
  await raises(openai.NotFoundError, { status: 404, code: 'model_not_found' }, () =>
    c.chat.completions.create({ model: 'none/ok', messages: ASK }));
});

check('stream', async () => {
  assert.equal(await textOf(await ask('up/chunks-20', { stream: true })), Array.from({ length: 20 }, (_, i) => `c${i} `).join(''));
});

check('usage_not_asked_for_is_hidden', async () => {
  for (const model of ['up/ok', 'up/usage-every-chunk']) {
    for await (const c of await ask(model, { stream: true })) {
      assert(c.choices.length, `${model}: a chunk without choices`);
      assert(!('usage' in c), `${model}: usage that nobody asked for`);
    }
  }
});

check('usage_asked_for', async () => {
  const all = [];
  for await (const c of await ask('up/ok', { stream: true, stream_options: { include_usage: true } })) all.push(c);
  assert.equal(all.at(-1).choices.length, 0);
  assert.equal(all.at(-1).usage.total_tokens, 14);
});

check('tools', async () => {
  const r = await ask('up/tools', { tools: [weather] });
  assert.equal(r.choices[0].finish_reason, 'tool_calls');
  assert.deepEqual(JSON.parse(r.choices[0].message.tool_calls[0].function.arguments), { city: 'Paris' });
});

check('tools_streamed_by_the_helper', async () => {
  const s = client().chat.completions.stream({ model: 'up/tools', messages: ASK, tools: [weather] });
  const final = await s.finalChatCompletion();
  assert.equal(final.choices[0].message.tool_calls[0].function.name, 'weather');
  assert.equal(final.choices[0].message.tool_calls[0].function.arguments, '{"city":"Paris"}');
});

check('many_choices', async () => {
  assert.deepEqual((await ask('up/ok', { n: 3 })).choices.map((c) => c.index), [0, 1, 2]);
});

check('body_is_byte_identical', async () => {
  await forget();
  const body = {
    x_vendor: { b: [1.5, 2.5e-7, null], a: [[{}]] }, model: 'up/ok', messages: [{ role: 'user', content: 'é \u2028 \\ " 中 😀' }],
    logprobs: true, top_logprobs: 2, tools: [weather],
  };
  await client().chat.completions.create(body);
  assert.equal((await last('ok')).body, JSON.stringify(body).replace('"up/ok"', '"ok"'));
});

check('fallback', async () => {
  await forget();
  assert.equal((await ask('fast')).choices[0].message.content, HELLO);
  assert.deepEqual((await seen()).map((r) => r.model), ['status-500', 'ok']);
});

check('embeddings', async () => {
  const vector = (i, n) => Array.from({ length: n }, (_, d) => (i + d + 1) / 16);
  // Without encoding_format this SDK asks for base64 and decodes it.
  for (const model of ['up/ok', 'up/float-embeddings']) {
    const r = await client().embeddings.create({ model, input: ['a', 'b'] });
    assert.deepEqual(r.data.map((d) => Array.from(d.embedding)), [vector(0, 8), vector(1, 8)], model);
    const f = await client().embeddings.create({ model, input: 'a', encoding_format: 'float' });
    assert.deepEqual(f.data[0].embedding, vector(0, 8), model);
  }
});

check('moderations', async () => {
  assert.equal((await client().moderations.create({ model: 'up/ok', input: 'a' })).results[0].flagged, false);
});

check('legacy_completions', async () => {
  const r = await client().completions.create({ model: 'up/ok', prompt: 'Say hello' });
  assert.equal(r.choices[0].text, HELLO);
});

check('models', async () => {
  const ids = [];
  for await (const m of client().models.list()) ids.push(m.id);
  assert(ids.includes('fast') && ids.includes('sandbox/echo'), ids.join(' '));
  assert.equal((await client().models.retrieve('sandbox/echo')).id, 'sandbox/echo');
});

check('leaving_mid_stream_closes_the_upstream', async () => {
  await forget();
  let n = 0;
  for await (const _ of await ask('up/never-ending', { stream: true })) if (++n === 3) break;
  await closedUpstream('never-ending');
});

check('abort_while_waiting_for_the_head', async () => {
  await forget();
  const stop = new AbortController();
  const pending = ask('up/slow-header', { stream: true }, { signal: stop.signal });
  const outcome = raises(openai.APIUserAbortError, {}, () => pending);
  await eventually(5000, 'the upstream has the request', async () => (await seen('slow-header')).length > 0);
  stop.abort();
  await outcome;
  await closedUpstream('slow-header');
});

await run();
