// An independent Cashu wallet: it reads what a refused request asks for, pays exactly that, and
// redeems the change.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Wallet, decodePaymentRequest, getEncodedToken, sumProofs } from '@cashu/cashu-ts';

import { GATEWAY, HELLO, cashuToken } from './gateway.mjs';

const ASKED = { model: 'demo', messages: HELLO, max_tokens: 200 };

function ask(headers) {
  const all = { 'Content-Type': 'application/json', ...headers };
  const body = JSON.stringify(ASKED);
  return fetch(`${GATEWAY}/v1/chat/completions`, { method: 'POST', headers: all, body });
}

test('a wallet pays what a refusal asks for and redeems its change', async () => {
  const refused = await ask({});
  assert.equal(refused.status, 401);
  const request = decodePaymentRequest(refused.headers.get('x-cashu'));
  assert.equal(request.unit, 'sat');
  assert.equal(request.mints.length, 1);
  const asked = Number(request.amount);
  assert.ok(asked > 0);

  const [mint] = request.mints;
  const wallet = new Wallet(mint, { unit: 'sat' });
  await wallet.loadMint();
  const held = await wallet.receive(await cashuToken(asked + 50));
  const { send, keep } = await wallet.send(asked, held);
  assert.equal(Number(sumProofs(send)), asked);

  const answer = await ask({ 'X-Cashu': getEncodedToken({ mint, proofs: send, unit: 'sat' }) });
  assert.equal(answer.status, 200);
  const { usage } = await answer.json();
  const spent = Math.ceil(usage.cost.total_msats / 1000);
  const change = await wallet.receive(answer.headers.get('x-cashu'));
  assert.equal(Number(sumProofs(change)), asked - spent);
  assert.equal(Number(sumProofs(keep)) + asked, Number(sumProofs(held)));
});
