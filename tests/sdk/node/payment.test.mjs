// The unmodified SDK, paid by ecash: as its key, or request by request in a header.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';

import { HELLO, cashuToken, client, costOf, paying, settled, worth } from './gateway.mjs';

const DEMO = { model: 'demo', messages: HELLO };
const wholeSats = (msat) => Math.floor(msat / 1000) * 1000;

for (const format of ['A', 'B']) {
  test(`a cashu${format} token is a key`, async () => {
    const token = await cashuToken(500, format);
    const completion = await client(token).chat.completions.create(DEMO);
    assert.equal(await settled(token), 500_000 - costOf(completion.usage));
  });

  test(`a cashu${format} token in a header pays for one request and the change comes back`, async () => {
    const openai = paying(await cashuToken(100, format));
    const { data, response } = await openai.chat.completions.create(DEMO).withResponse();
    assert.equal(await worth(response.headers.get('x-cashu')), wholeSats(100_000 - costOf(data.usage)));
  });
}

test('a stream paid by header brings its change in the head', async () => {
  const openai = paying(await cashuToken(100));
  const asked = { ...DEMO, stream: true, stream_options: { include_usage: true } };
  const { data, response } = await openai.chat.completions.create(asked).withResponse();
  let usage;
  for await (const chunk of data) usage = chunk.usage ?? usage;
  assert.equal(await worth(response.headers.get('x-cashu')), wholeSats(100_000 - costOf(usage)));
});

test('a refused request gives the same token back', async () => {
  const token = await cashuToken(100);
  const refused = paying(token).chat.completions.create({ ...DEMO, model: 'no-such-model' });
  await assert.rejects(refused, (error) => {
    return error instanceof OpenAI.NotFoundError && error.headers.get('x-cashu') === token;
  });
  assert.equal(await worth(token), 100_000);
});

test('a failed request is repaid in full and not sent again', async () => {
  const openai = paying(await cashuToken(100), { maxRetries: 2 });
  const failed = await openai.chat.completions.create({ ...DEMO, model: 'demo-429' }).catch((error) => error);
  assert.ok(failed instanceof OpenAI.RateLimitError);
  assert.equal(failed.headers.get('x-should-retry'), 'false');
  assert.equal(await worth(failed.headers.get('x-cashu')), 100_000);
});
