// Images and sound, by the SDK for Node.

import { assert, check, client, openai, run } from './harness.mjs';

const sound = () => openai.toFile(Buffer.from('sound'), 'talk.mp3');

check('image', async () => {
  const r = await client().images.generate({ model: 'up/gpt-image-1', prompt: 'a cat', n: 2 });
  assert.equal(r.data.length, 2);
  assert.equal(r.usage.output_tokens, 200);
});

check('image_stream', async () => {
  const types = [];
  for await (const e of await client().images.generate({ model: 'up/gpt-image-1', prompt: 'a cat', stream: true, partial_images: 1 })) types.push(e.type);
  assert.deepEqual(types, ['image_generation.partial_image', 'image_generation.completed']);
});

check('image_edit', async () => {
  const image = await openai.toFile(Buffer.from('png'), 'a.png', { type: 'image/png' });
  const r = await client().images.edit({ model: 'up/gpt-image-1', prompt: 'a dog', image: [image, image] });
  assert.equal(r.data.length, 1);
});

check('speech', async () => {
  const r = await client().audio.speech.create({ model: 'up/tts-1', input: 'Hello', voice: 'alloy' });
  assert.equal((await r.arrayBuffer()).byteLength, 100_000);
});

check('transcription', async () => {
  const r = await client().audio.transcriptions.create({ model: 'up/whisper-1', file: await sound() });
  assert.equal(r.text, '5 bytes');
});

check('transcription_stream', async () => {
  const types = [];
  for await (const e of await client().audio.transcriptions.create({ model: 'up/gpt-4o-transcribe', file: await sound(), stream: true })) types.push(e.type);
  assert.deepEqual(types, ['transcript.text.delta', 'transcript.text.done']);
});

await run();
