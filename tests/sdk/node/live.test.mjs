// The unmodified SDK on live streams paid by a header: every chunk as it comes, then the change. And
// the change as a trailer, read by an HTTP client that is not ours.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';

import { GATEWAY, HELLO, account, cashuToken, client, costOf, paying, worth } from './gateway.mjs';

const STREAM = { messages: HELLO, stream: true, stream_options: { include_usage: true } };
const due = (cost) => Math.floor((100_000 - cost) / 1000) * 1000;

const live = (token) => paying(token, { defaultHeaders: { 'X-Cashu': token, 'X-Cashu-Stream': 'live' } });

// The change of a payment, asked for until it is there.
async function claimed(token) {
  for (;;) {
    const headers = { 'Content-Type': 'application/json', 'X-Cashu': token };
    const answer = await fetch(`${GATEWAY}/v1/balance/refund`, { method: 'POST', headers, body: '{}' });
    const body = await answer.json();
    if (answer.ok) return body.token;
    assert.ok(['refund_pending', 'requests_in_progress'].includes(body.error.code), body.error.code);
  }
}

async function read(stream) {
  let [text, usage] = ['', null];
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? '';
    usage = chunk.usage ?? usage;
  }
  return { text, usage };
}

for (const model of ['demo', 'demo-byte-by-byte', 'demo-crlf']) {
  test(`every chunk of ${model} comes and the change is claimed`, async () => {
    const token = await cashuToken(100);
    const { text, usage } = await read(await live(token).chat.completions.create({ ...STREAM, model }));
    const { key } = await account();
    const byKey = await read(await client(key).chat.completions.create({ ...STREAM, model }));
    assert.equal(text, byKey.text);
    assert.equal(await worth(await claimed(token)), due(costOf(usage)));
  });
}

test('the change is a comment of the stream', async () => {
  const token = await cashuToken(100);
  const response = await live(token).chat.completions.create({ ...STREAM, model: 'demo' }).asResponse();
  const [, told] = (await response.text()).match(/data: \[DONE\]\n\n: x-cashu (cashuB\S+)\n\n$/);
  assert.equal(told, await claimed(token));
});

test('the change is a trailer for whoever takes those, on a connection that goes on', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  for (const round of [1, 2]) {
    const token = await cashuToken(100);
    const headers = { 'Content-Type': 'application/json', 'X-Cashu': token, TE: 'trailers' };
    const answer = await new Promise((resolve, reject) => {
      const asked = http.request(`${GATEWAY}/v1/chat/completions`, { method: 'POST', headers, agent });
      asked.on('response', resolve).on('error', reject);
      asked.on('finish', () => assert.equal(asked.reusedSocket, round === 2));
      asked.end(JSON.stringify({ ...STREAM, model: 'demo' }));
    });
    assert.equal(answer.headers.trailer, 'x-cashu, x-cashu-refund');
    let text = '';
    for await (const piece of answer) text += piece;
    assert.match(text, /data: \[DONE\]/);
    assert.equal(answer.trailers['x-cashu'], await claimed(token));
    assert.equal(answer.trailers['x-cashu-refund'], answer.trailers['x-cashu']);
  }
  agent.destroy();
});
