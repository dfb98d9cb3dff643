// What the tests have in common: money, accounts and clients. Nothing here changes the SDK.

import OpenAI from 'openai';

export const GATEWAY = process.env.GATEWAY_URL;
const FAUCET = process.env.FAUCET_URL;
const SETTLED_WITHIN_MS = 5000;

export const HELLO = [{ role: 'user', content: 'Where does every satoshi go?' }];

export function client(apiKey, options = {}) {
  return new OpenAI({ baseURL: `${GATEWAY}/v1`, apiKey, maxRetries: 0, timeout: 30_000, ...options });
}

export function paying(cashuToken, options = {}) {
  return client('unused', { defaultHeaders: { 'X-Cashu': cashuToken }, ...options });
}

export async function cashuToken(sats, format = 'B') {
  return (await answered(await fetch(`${FAUCET}?amount=${sats}&format=${format}`))).trim();
}

export async function account(sats = 1000) {
  const query = new URLSearchParams({ initial_balance_token: await cashuToken(sats) });
  const created = await json(`/v1/balance/create?${query}`);
  return { key: created.api_key, balance: created.balance };
}

// The balance once no request is open; the settlement runs after the last byte.
export async function settled(key) {
  const until = Date.now() + SETTLED_WITHIN_MS;
  while (Date.now() < until) {
    const info = await json('/v1/balance/info', { headers: bearer(key) });
    if (info.reserved === 0) return info.balance;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('still reserved');
}

// What ecash is worth to somebody else, in msat: redeemed into a new account.
export async function worth(change) {
  const { key } = await account(1);
  const headers = { ...bearer(key), 'Content-Type': 'application/json' };
  const body = JSON.stringify({ cashu_token: change });
  return (await json('/v1/balance/topup', { method: 'POST', headers, body })).msats;
}

export function costOf(usage) {
  return usage.cost.total_msats;
}

// What text costs in the sandbox, in msat.
export function priceOf(inputTokens, outputTokens = 0) {
  return 50 * inputTokens + 200 * outputTokens;
}

function bearer(key) {
  return { Authorization: `Bearer ${key}` };
}

async function json(path, options) {
  return JSON.parse(await answered(await fetch(GATEWAY + path, options)));
}

async function answered(response) {
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.status}: ${text}`);
  return text;
}
