// What the Node scripts here share. The protocol is the one of harness.py.

import assert from 'node:assert/strict';

const openai = await import(process.env.OPENAI_MODULE);
export const OpenAI = openai.default;
export { assert, openai };

export const env = process.env;
export const BASE = env.BULKHEAD_URL + '/v1';
export const ASK = [{ role: 'user', content: 'Say hello. ' + env.PROMPT_CANARY }];

const checks = [];

export function check(name, f) {
  checks.push([name, f]);
}

export async function run() {
  let failed = 0;
  for (const [name, f] of checks) {
    try {
      await f();
      console.log('ok', name);
    } catch (e) {
      failed++;
      console.log(e?.stack ?? e);
      console.log('not ok', name);
    }
  }
  console.log('done', checks.length);
  process.exitCode = failed ? 1 : 0;
}

// A client that does not retry, so that every answer is seen.
export function client(apiKey = env.BULKHEAD_KEY, options = {}) {
  return new OpenAI({ apiKey, baseURL: BASE, maxRetries: 0, timeout: 30_000, ...options });
}

export function adminClient(adminAPIKey = env.BULKHEAD_ADMIN_KEY) {
  return client('not-used', { adminAPIKey });
}

// Expects exactly this class of error with these fields; a function judges its value.
export async function raises(kind, fields, f) {
  let got;
  try {
    await f();
  } catch (e) {
    got = e;
  }
  assert(got, `nothing was thrown, want ${kind.name}`);
  assert.equal(got.constructor.name, kind.name, String(got?.stack));
  for (const [name, want] of Object.entries(fields)) {
    if (typeof want === 'function') assert(want(got[name]), `${name} is ${JSON.stringify(got[name])}`);
    else assert.deepEqual(got[name], want, name);
  }
  return got;
}

// The requests the upstream got since forget(), all or of one of its models.
export async function seen(model) {
  const all = await (await fetch(env.UPSTREAM_URL + '/_requests')).json();
  return all.filter((r) => model === undefined || r.model === model);
}

export async function forget() {
  await fetch(env.UPSTREAM_URL + '/_requests', { method: 'DELETE' });
}

export async function last(model) {
  const all = await seen(model);
  assert(all.length, `the upstream saw no request for ${model}`);
  return all.at(-1);
}

export async function eventually(ms, what, condition) {
  const end = Date.now() + ms;
  while (!(await condition())) {
    assert(Date.now() < end, `not within ${ms} ms: ${what}`);
    await new Promise((r) => setTimeout(r, 20));
  }
}

// Expects that the upstream sees this model's request closed by its client within 1 s from now.
export async function closedUpstream(model) {
  await eventually(1000, `the upstream sees ${model} closed`, async () => (await last(model)).closed);
}

export async function textOf(stream) {
  let text = '';
  for await (const c of stream) text += c.choices[0]?.delta?.content ?? '';
  return text;
}

const kinds = {
  string: (v) => typeof v === 'string' && v !== '',
  int: (v) => Number.isInteger(v),
  'int?': (v) => v == null || Number.isInteger(v),
  bool: (v) => typeof v === 'boolean',
};

// Holds obj against a form such as { id: 'string', created_at: 'int', object: '=list' }.
export function shape(obj, form) {
  for (const [name, kind] of Object.entries(form)) {
    const v = obj[name];
    if (typeof kind === 'object') shape(v, kind);
    else if (kind[0] === '=') assert.equal(v, kind.slice(1), name);
    else assert(kinds[kind](v), `${name} is ${JSON.stringify(v)}, want ${kind}, in ${JSON.stringify(obj)}`);
  }
  return obj;
}
