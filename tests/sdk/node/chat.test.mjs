// The unmodified SDK, paid by key: it sees what it would see at OpenAI, and what it cost.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';

import { HELLO, account, client, costOf, settled } from './gateway.mjs';

const ask = (key, options) => client(key).chat.completions.create({ model: 'demo', messages: HELLO, ...options });

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');

test('a completion costs what it says', async () => {
  const { key, balance } = await account();
  const completion = await ask(key);
  assert.match(completion.choices[0].message.content, /^Every satoshi/);
  assert.equal(completion.usage.completion_tokens, 20);
  assert.ok(costOf(completion.usage) > 0);
  assert.equal(balance - (await settled(key)), costOf(completion.usage));
});

test('a request that is repeated is answered again and charged once', async () => {
  const { key, balance } = await account();
  const options = { headers: { 'Idempotency-Key': 'order-1' } };
  const create = () =>
    client(key).chat.completions.create({ model: 'demo', messages: HELLO }, options).withResponse();
  const [first, again] = [await create(), await create()];
  assert.equal(again.response.headers.get('idempotency-replayed'), 'true');
  assert.deepEqual(again.data, first.data);
  assert.equal(balance - (await settled(key)), costOf(again.data.usage));
});

test('a stream says the same, hides usage nobody asked for and is charged all the same', async () => {
  const { key } = await account();
  const whole = await ask(key);
  const between = await settled(key);
  const chunks = await collect(await ask(key, { stream: true }));
  assert.equal(textOf(chunks), whole.choices[0].message.content);
  assert.ok(chunks.every((chunk) => chunk.choices.length > 0 && !chunk.usage));
  assert.equal(between - (await settled(key)), costOf(whole.usage));
});

test('a stream shows usage and cost to who asked', async () => {
  const { key, balance } = await account();
  const chunks = await collect(await ask(key, { stream: true, stream_options: { include_usage: true } }));
  const last = chunks.at(-1);
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.completion_tokens, 20);
  assert.equal(balance - (await settled(key)), costOf(last.usage));
});

test('a stream that breaks is seen to break', async () => {
  const { key } = await account();
  const stream = await ask(key, { model: 'demo-drops-mid-stream', stream: true });
  await assert.rejects(collect(stream), (error) => !(error instanceof assert.AssertionError));
});

test('a stream the client leaves is charged at most what was reserved and ends', async () => {
  const { key, balance } = await account();
  const stream = await ask(key, { model: 'demo-slow', stream: true });
  for await (const _first of stream) break;
  const left = await settled(key);
  assert.ok(left > 0 && left <= balance);
});

test('the models are listed and found by name', async () => {
  const { key } = await account(1);
  const names = [];
  for await (const model of client(key).models.list()) names.push(model.id);
  assert.ok(names.includes('demo'));
  assert.equal((await client(key).models.retrieve('demo')).id, 'demo');
  await assert.rejects(client(key).models.retrieve('no-such-model'), OpenAI.NotFoundError);
});

test('a key that does not exist is an authentication error', async () => {
  await assert.rejects(ask('sk-' + '0'.repeat(32)), (error) => {
    return error instanceof OpenAI.AuthenticationError && error.code === 'invalid_api_key';
  });
});

test('a key without balance is told what is missing', async () => {
  const { key, balance } = await account(1);
  const messages = [{ role: 'user', content: 'much '.repeat(200_000) }];
  await assert.rejects(ask(key, { messages }), (error) => {
    return error instanceof OpenAI.APIError && error.status === 402 && error.error.details.available === balance;
  });
  assert.equal(await settled(key), balance);
});

const failures = [
  [{ model: 'no-such-model' }, OpenAI.NotFoundError],
  [{ max_tokens: -1 }, OpenAI.BadRequestError],
  [{ model: 'demo-400' }, OpenAI.BadRequestError],
  [{ model: 'demo-429' }, OpenAI.RateLimitError],
  [{ model: 'demo-500' }, OpenAI.InternalServerError],
  [{ model: 'demo-401' }, OpenAI.InternalServerError],
];

for (const [options, kind] of failures) {
  test(`${JSON.stringify(options)} is a ${kind.name} and costs nothing`, async () => {
    const { key, balance } = await account(200);
    await assert.rejects(ask(key, options), (error) => error instanceof kind && Boolean(error.requestID));
    assert.equal(await settled(key), balance);
  });
}
