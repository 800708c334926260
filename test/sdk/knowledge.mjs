// Files and vector stores with the helpers of the SDK for Node.

import fs from 'node:fs';
import path from 'node:path';

import { OpenAI, assert, check, client, env, openai, raises, run, shape } from './harness.mjs';

const c = client();
const doc = (name) => fs.createReadStream(path.join(env.DOCS, name));

check('files', async () => {
  const f = shape(await c.files.create({ file: await openai.toFile(Buffer.from('notes ' + env.PROMPT_CANARY), 'notes.txt'), purpose: 'assistants' }),
    { id: 'string', object: '=file', bytes: 'int', created_at: 'int', filename: '=notes.txt', purpose: '=assistants', status: '=processed' });
  assert.equal((await c.files.retrieve(f.id)).id, f.id);
  assert.equal(await (await c.files.content(f.id)).text(), 'notes ' + env.PROMPT_CANARY);
  const e = shape(await c.files.create({ file: await openai.toFile(Buffer.from('{}'), 'a.json'), purpose: 'user_data', expires_after: { anchor: 'created_at', seconds: 7200 } }), { id: 'string' });
  assert.equal(e.expires_at, e.created_at + 7200);
  const all = [];
  for await (const x of c.files.list({ limit: 1 })) all.push(x.id);
  assert(all.includes(f.id) && all.includes(e.id));
  for (const x of [f, e]) shape(await c.files.delete(x.id), { id: '=' + x.id, object: '=file', deleted: 'bool' });
  await raises(OpenAI.NotFoundError, { status: 404 }, () => c.files.retrieve(f.id));
  await raises(OpenAI.BadRequestError, { status: 400, param: 'purpose' }, async () =>
    c.files.create({ file: await openai.toFile(Buffer.from('text'), 'a.txt'), purpose: 'batch' }));
});

check('upload_and_poll_search_content_delete', async () => {
  const store = shape(await c.vectorStores.create({ name: 'node' }), { id: 'string', object: '=vector_store', status: '=completed', usage_bytes: 'int' });
  const files = {};
  for (const name of ['travel.pdf', 'holidays.docx', 'canteen.md']) {
    const f = await c.vectorStores.files.uploadAndPoll(store.id, doc(name));
    shape(f, { id: 'string', object: '=vector_store.file', status: '=completed', vector_store_id: '=' + store.id });
    files[name] = f.id;
  }
  const { data } = await c.vectorStores.search(store.id, { query: 'How many days of holiday are there?' });
  assert.equal(data[0].file_id, files['holidays.docx']);
  assert.match(data[0].content[0].text, /thirty days/);
  let text = '';
  for await (const x of c.vectorStores.files.content(files['travel.pdf'], { vector_store_id: store.id })) text += x.text;
  assert.match(text, /booked by the office/);
  shape(await c.vectorStores.files.update(files['travel.pdf'], { vector_store_id: store.id, attributes: { category: 'x', n: 1, b: false } }), { attributes: { category: '=x', n: 'int' } });
  assert.equal((await c.vectorStores.retrieve(store.id)).file_counts.completed, 3);
  shape(await c.vectorStores.files.delete(files['travel.pdf'], { vector_store_id: store.id }), { deleted: 'bool' });
  const ids = [];
  for await (const x of c.vectorStores.files.list(store.id, { limit: 1, order: 'asc' })) ids.push(x.id);
  assert.deepEqual(ids, [files['holidays.docx'], files['canteen.md']]);
  const batch = await c.vectorStores.fileBatches.uploadAndPoll(store.id, { files: [await openai.toFile(Buffer.from('one more'), 'more.txt'), doc('travel.pdf')] });
  shape(batch, { object: '=vector_store.files_batch', status: '=completed', file_counts: { completed: 'int' } });
  assert.equal(batch.file_counts.completed, 2);
  shape(await c.vectorStores.update(store.id, { name: 'renamed' }), { name: '=renamed' });
  shape(await c.vectorStores.delete(store.id), { id: '=' + store.id, object: '=vector_store.deleted' });
  await raises(OpenAI.NotFoundError, { status: 404 }, () => c.vectorStores.retrieve(store.id));
});

await run();
