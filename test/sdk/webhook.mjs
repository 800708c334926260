// Verifies with the SDK for Node a webhook that the gateway has sent.

import { assert, check, client, env, openai, raises, run } from './harness.mjs';

const { WEBHOOK_BODY: body, WEBHOOK_SECRET: secret } = env;
const headers = JSON.parse(env.WEBHOOK_HEADERS);
const { webhooks } = client();

check('the_signature_is_right', async () => {
  await webhooks.verifySignature(body, headers, secret);
  assert.equal((await webhooks.unwrap(body, headers, secret)).type, 'spend_alert.triggered');
});

check('nothing_else_has_it', async () => {
  for (const [b, h, s] of [[body + ' ', headers, secret], [body, { ...headers, 'webhook-id': 'evt_other' }, secret], [body, headers, 'whsec_' + 'A'.repeat(43) + '=']]) {
    await raises(openai.InvalidWebhookSignatureError, {}, () => webhooks.verifySignature(b, h, s));
  }
});

await run();
