// Agents of the SDK for Node, grounded in documents it uploads.

import fs from 'node:fs';
import path from 'node:path';

import { OpenAI, assert, check, client, env, raises, run, shape, textOf } from './harness.mjs';

const c = client();
const headers = { 'X-Bulkhead-Annotations': 'true' };
const question = [{ role: 'user', content: 'When does the canteen open? ' + env.PROMPT_CANARY }];
let store, agent;

check('store', async () => {
  store = (await c.vectorStores.create({ name: 'node handbook' })).id;
  for (const name of ['travel.pdf', 'holidays.docx', 'canteen.md']) {
    const f = await c.vectorStores.files.uploadAndPoll(store, fs.createReadStream(path.join(env.DOCS, name)));
    assert.equal(f.status, 'completed', name);
  }
  const { data } = await c.vectorStores.search(store, { query: 'How many days of holiday does everybody have?' });
  assert.equal(data[0].filename, 'holidays.docx');
  assert.match(data[0].content[0].text, /thirty days/);
});

check('life of an agent', async () => {
  const { agents } = c.beta;
  agent = shape(await agents.create({ model: 'sandbox/grounded', name: 'Handbook', instructions: 'Be brief.', metadata: { team: 'people' }, slug: 'node-handbook', knowledge: { stores: [store] } }),
    { id: 'string', object: '=agent', slug: '=node-handbook', name: '=Handbook', instructions: '=Be brief.', version: 'int', metadata: { team: '=people' } });
  assert.deepEqual(await agents.retrieve(agent.id), agent);
  const changed = await agents.update(agent.id, { instructions: null, name: 'Handbook of people' });
  assert.deepEqual([changed.name, changed.instructions, changed.version], ['Handbook of people', null, 2]);
  const ids = [];
  for await (const a of agents.list({ limit: 1 })) ids.push(a.id);
  assert(ids.includes(agent.id), 'not in the pages of the list');
  const models = [];
  for await (const m of c.models.list()) models.push(m.id);
  assert(models.includes('agent/node-handbook'), 'not among the models');
  for (const bad of [{ tools: [{ type: 'web_search' }] }, { service_tier: 'flex' }, { model: 'agent/node-handbook' }]) {
    await raises(OpenAI.BadRequestError, { status: 400, param: Object.keys(bad)[0] }, () => agents.update(agent.id, bad));
  }
});

check('answers are grounded', async () => {
  for (const [content, want, file] of [
    ['When does the canteen open?', 'The canteen opens at noon and closes at two. [', 'canteen.md'],
    ['How many days of holiday does everybody have?', 'Everybody has thirty days of holiday in a year. [', 'holidays.docx'],
    ['Who books trains?', 'Trains are booked by the office', 'travel.pdf'],
  ]) {
    const { data, response } = await c.chat.completions.create({ model: 'agent/node-handbook', messages: [{ role: 'user', content }] }, { headers }).withResponse();
    const { message } = data.choices[0];
    assert(message.content.includes(want), message.content);
    assert.match(response.headers.get('x-bulkhead-knowledge'), /^passages=\d+; sources=file-/);
    shape(message.annotations[0], { type: '=file_citation', index: 'int', file_id: 'string', filename: '=' + file, vector_store_id: '=' + store });
  }
  const { data, response } = await c.chat.completions.create({ model: 'agent/node-handbook', messages: [{ role: 'user', content: 'Xylophone?' }] }).withResponse();
  assert.equal(response.headers.get('x-bulkhead-knowledge'), 'passages=0');
  assert.match(data.choices[0].message.content, /^I do not know/);
});

check('streams', async () => {
  const body = { model: 'agent/node-handbook', messages: question, stream: true };
  assert.match(await textOf(await c.chat.completions.create(body)), /opens at noon/);
  const chunks = [];
  for await (const x of await c.chat.completions.create(body, { headers })) chunks.push(...x.choices);
  const cited = chunks.filter((x) => x.delta.annotations);
  assert.equal(cited.length, 1);
  assert.equal(cited[0].finish_reason, null);
  assert.equal(chunks.at(-1).finish_reason, 'stop');
  shape(cited[0].delta.annotations[0], { type: '=file_citation', index: 'int', filename: '=canteen.md', vector_store_id: '=' + store });
  const final = await c.chat.completions.stream({ model: body.model, messages: question }, { headers }).finalChatCompletion();
  assert.match(final.choices[0].message.content, /opens at noon/);
  assert.equal(final.choices[0].message.annotations[0].filename, 'canteen.md');
});

check('a real model receives the passage', async () => {
  const real = await c.beta.agents.create({ model: 'llm/smollm2-135m', slug: 'node-real', knowledge: { stores: [store], top_k: 1 } });
  const slow = client(env.BULKHEAD_KEY, { timeout: 120_000 });
  const ask = (model) => slow.chat.completions.create({ model, messages: question, max_tokens: 8, temperature: 0 });
  const [bare, told] = [await ask('llm/smollm2-135m'), await ask('agent/node-real')];
  assert(told.choices[0].message.content.trim(), 'empty answer');
  const more = told.usage.prompt_tokens - bare.usage.prompt_tokens;
  assert(more > 60, `${more} tokens more than without the passage`);
  assert.equal((await c.beta.agents.delete(real.id)).deleted, true);
});

check('contexts', async () => {
  const admin = client(env.BULKHEAD_ADMIN_KEY);
  const made = await admin.post('/organization/contexts', { body: { kind: 'voice', text: 'Speak like a sailor.' } });
  assert.equal((await admin.get('/organization/contexts/' + made.id)).text, 'Speak like a sailor.');
  await admin.delete('/organization/contexts/' + made.id);
  assert.equal((await c.beta.agents.delete(agent.id)).deleted, true);
  await raises(OpenAI.NotFoundError, { status: 404, code: 'model_not_found' }, () => c.chat.completions.create({ model: 'agent/node-handbook', messages: question }));
});

await run();
