// Responses, by the SDK for Node: passed through to the upstream, whose answers are kept there.

import { assert, check, client, openai, run } from './harness.mjs';

const input = 'Say hello. ' + process.env.PROMPT_CANARY;
const hello = 'Hello from the upstream';

const refused = async (status, code, f) => {
  await assert.rejects(f, (e) => e instanceof openai.APIError && e.status === status && e.code === code);
};

check('text', async () => {
  const r = await client().responses.create({ model: 'up/ok', input, instructions: 'Be brief.', max_output_tokens: 100 });
  assert.equal(r.output_text, hello);
  assert.equal(r.usage.input_tokens, 10);
});

check('stream', async () => {
  let text = '';
  let last;
  for await (const e of await client().responses.create({ model: 'up/ok', input, stream: true })) {
    if (e.type === 'response.output_text.delta') text += e.delta;
    last = e;
  }
  assert.equal(text, hello);
  assert.equal(last.type, 'response.completed');
  assert.equal(last.response.usage.total_tokens, 14);
});

check('stream_helper', async () => {
  const r = await client().responses.stream({ model: 'up/ok', input }).finalResponse();
  assert.equal(r.output_text, hello);
});

check('kept', async () => {
  const r = await client().responses.create({ model: 'up/ok', input });
  assert.equal((await client().responses.retrieve(r.id, { include: ['reasoning.encrypted_content'] })).output_text, hello);
  const items = [];
  for await (const item of client().responses.inputItems.list(r.id)) items.push(item);
  assert.equal(items.length, 1);
  const next = await client().responses.create({ model: 'up/ok', input, previous_response_id: r.id });
  assert.equal(next.usage.input_tokens, 24);
  assert.equal((await client().responses.cancel(r.id)).status, 'cancelled');
  await client().responses.delete(r.id);
  await refused(404, 'not_found', () => client().responses.retrieve(r.id));
  await refused(404, 'previous_response_not_found', () => client().responses.create({ model: 'up/ok', input, previous_response_id: r.id }));
});

check('refusals', async () => {
  await refused(404, 'not_found', () => client().responses.retrieve('resp_ffffffff'));
  await refused(400, 'field_not_supported', () => client().responses.create({ model: 'up/ok', input, background: true }));
});

check('broken_stream', async () => {
  for (const model of ['up/cut', 'up/cut-clean', 'up/error-mid']) {
    let text = '';
    await assert.rejects(async () => {
      for await (const e of await client().responses.create({ model, input, stream: true })) {
        if (e.type === 'response.output_text.delta') text += e.delta;
      }
    });
    assert.equal(text, 'Hello from');
  }
});

await run();
