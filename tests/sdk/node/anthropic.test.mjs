// The unmodified Anthropic SDK: it sees what it would see at Anthropic, and what it cost.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';

import { GATEWAY, HELLO, account, costOf, priceOf, settled } from './gateway.mjs';

const ASKED = { model: 'demo', max_tokens: 100, messages: HELLO };

// The SDK adds the path's `/v1` itself, and sends the key in `x-api-key`.
const client = (apiKey) => new Anthropic({ baseURL: GATEWAY, apiKey, maxRetries: 0, timeout: 30_000 });

test('a message costs what it says', async () => {
  const { key, balance } = await account();
  const message = await client(key).messages.create(ASKED);
  assert.match(message.content[0].text, /^Every satoshi/);
  assert.deepEqual([message.usage.input_tokens, message.usage.output_tokens], [10, 20]);
  assert.equal(costOf(message.usage), priceOf(10, 20));
  assert.equal(balance - (await settled(key)), priceOf(10, 20));
});

test('a streamed message says the same', async () => {
  const { key } = await account();
  const whole = await client(key).messages.create(ASKED);
  const between = await settled(key);
  const final = await client(key).messages.stream(ASKED).finalMessage();
  assert.equal(final.content[0].text, whole.content[0].text);
  assert.deepEqual([final.usage.input_tokens, final.usage.output_tokens], [10, 20]);
  assert.equal(between - (await settled(key)), priceOf(10, 20));
});

test('a streamed message has the events of the API in their order', async () => {
  const { key, balance } = await account();
  const kinds = [];
  for await (const event of await client(key).messages.create({ ...ASKED, stream: true })) kinds.push(event.type);
  assert.deepEqual(kinds.slice(0, 2), ['message_start', 'content_block_start']);
  assert.deepEqual(kinds.slice(-3), ['content_block_stop', 'message_delta', 'message_stop']);
  assert.equal(balance - (await settled(key)), priceOf(10, 20));
});

test('input that went through a cache is counted once', async () => {
  const { key, balance } = await account();
  const { usage } = await client(key).messages.create({ ...ASKED, model: 'demo-cached' });
  const { input_tokens: fresh, cache_read_input_tokens: read, cache_creation_input_tokens: written } = usage;
  assert.deepEqual([fresh, read, written], [3, 5, 2]);
  assert.equal(balance - (await settled(key)), priceOf(10, 20));
});

const failures = [
  ['no-such-model', Anthropic.NotFoundError],
  ['demo-429', Anthropic.RateLimitError],
  ['demo-401', Anthropic.InternalServerError],
];

for (const [model, kind] of failures) {
  test(`${model} is a ${kind.name} and costs nothing`, async () => {
    const { key, balance } = await account(200);
    await assert.rejects(client(key).messages.create({ ...ASKED, model }), (error) => error instanceof kind);
    assert.equal(await settled(key), balance);
  });
}

test('a key that does not exist is an authentication error', async () => {
  const asked = client('sk-' + '0'.repeat(32)).messages.create(ASKED);
  await assert.rejects(asked, (error) => error instanceof Anthropic.AuthenticationError);
});
