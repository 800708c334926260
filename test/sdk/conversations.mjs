// Conversations with the SDK for Node, and chats that join them.

import { OpenAI, assert, check, client, env, raises, run, shape } from './harness.mjs';

const c = client();
const say = (content, conversation, more = {}) =>
  c.chat.completions.create({ model: 'up/ok', messages: [{ role: 'user', content }], ...more }, { headers: { 'X-Conversation-Id': conversation } });

check('life_of_a_conversation', async () => {
  const a = shape(await c.conversations.create({ metadata: { topic: 'demo' }, items: [{ role: 'user', content: 'Hello ' + env.PROMPT_CANARY }] }),
    { id: 'string', object: '=conversation', created_at: 'int' });
  assert.deepEqual((await c.conversations.retrieve(a.id)).metadata, { topic: 'demo' });
  assert.deepEqual((await c.conversations.update(a.id, { metadata: { topic: 'other' } })).metadata, { topic: 'other' });
  shape(await c.conversations.items.create(a.id, { items: [{ role: 'assistant', content: 'two' }, { role: 'user', content: 'three' }] }), { object: '=list', has_more: 'bool' });
  const texts = [];
  for await (const i of c.conversations.items.list(a.id, { limit: 2, order: 'asc' })) texts.push(i.content[0].text);
  assert.deepEqual(texts, ['Hello ' + env.PROMPT_CANARY, 'two', 'three']);
  shape(await c.conversations.delete(a.id), { id: '=' + a.id, object: '=conversation.deleted', deleted: 'bool' });
  await raises(OpenAI.NotFoundError, { status: 404 }, () => c.conversations.retrieve(a.id));
});

check('two_days', async () => {
  const { response } = await say('I like tea. ' + env.PROMPT_CANARY, 'new').withResponse();
  const id = response.headers.get('x-conversation-id');
  let text = '';
  for await (const chunk of await say('What do I like?', id, { stream: true })) text += chunk.choices[0]?.delta?.content ?? '';
  assert.equal(text, 'Hello from the upstream');
  const said = [];
  for await (const i of c.conversations.items.list(id, { order: 'asc' })) said.push(i.content[0].text);
  assert.deepEqual(said, ['I like tea. ' + env.PROMPT_CANARY, 'Hello from the upstream', 'What do I like?', 'Hello from the upstream']);
  await raises(OpenAI.NotFoundError, { status: 404, code: 'conversation_not_found' }, () => say('x', id, { user: 'somebody' }));
});

await run();
