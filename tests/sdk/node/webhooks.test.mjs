// Deliveries verify with the library of Standard Webhooks.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { Webhook } from 'standardwebhooks';

import { GATEWAY, account, cashuToken } from './gateway.mjs';

async function post(path, key, body) {
  const headers = { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' };
  const options = { method: 'POST', headers, body: JSON.stringify(body) };
  const answer = await fetch(GATEWAY + path, options);
  assert.ok(answer.ok, await answer.clone().text());
  return answer.json();
}

for (const own of [undefined, 'a secret that is no base64']) {
  test(`a delivery verifies by ${own ?? 'a secret that was made here'}`, async (t) => {
    const server = createServer();
    t.after(() => server.close());
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${server.address().port}/hook`;
    const { key } = await account();
    const made = await post('/v1/webhooks', key, { url, events: ['balance.topup'], secret: own });
    const webhook = own ? new Webhook(own, { format: 'raw' }) : new Webhook(made.secret);

    const delivery = once(server, 'request');
    await post('/v1/balance/topup', key, { cashu_token: await cashuToken(20) });
    const [request, response] = await delivery;
    let body = '';
    for await (const chunk of request) body += chunk;
    response.writeHead(204, { Connection: 'close' }).end();

    const event = webhook.verify(body, request.headers);
    assert.equal(event.type, 'balance.topup');
    assert.equal(event.id, request.headers['webhook-id']);
    assert.equal(event.data.amount_msats, 20_000);
    assert.throws(() => webhook.verify(body.replace('20000', '90000'), request.headers));
  });
}
