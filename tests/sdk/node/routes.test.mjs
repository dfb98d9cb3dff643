// The unmodified OpenAI SDK beyond chat: every kind of thing it can buy, and what that costs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI, { toFile } from 'openai';

import { account, client, costOf, priceOf, settled } from './gateway.mjs';

// Ten tokens where it is a message, seven where it is only text.
const QUESTION = 'Where does every satoshi go?';
const MSAT_PER_IMAGE = 4000;
const MSAT_PER_SECOND = 1000;
const MSAT_PER_CHARACTER = 100;
const MSAT_PER_MODERATION = 1000;

// A WAV file of silence, as an upload.
function recording(seconds) {
  const sound = Buffer.alloc(8000 * seconds);
  const head = Buffer.alloc(44);
  head.write('RIFF', 0);
  head.writeUInt32LE(36 + sound.length, 4);
  head.write('WAVEfmt ', 8);
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(8000, 24);
  head.writeUInt32LE(8000, 28);
  head.writeUInt16LE(1, 32);
  head.writeUInt16LE(8, 34);
  head.write('data', 36);
  head.writeUInt32LE(sound.length, 40);
  return toFile(Buffer.concat([head, sound]), 'silence.wav', { type: 'audio/wav' });
}

test('a response costs what it says', async () => {
  const { key, balance } = await account();
  const response = await client(key).responses.create({ model: 'demo', input: QUESTION });
  assert.equal(response.status, 'completed');
  assert.match(response.output_text, /^Every satoshi/);
  assert.equal(costOf(response.usage), priceOf(10, 20));
  assert.equal(balance - (await settled(key)), priceOf(10, 20));
});

test('a streamed response says the same event by event', async () => {
  const { key, balance } = await account();
  const stream = client(key).responses.stream({ model: 'demo', input: QUESTION });
  const kinds = [];
  for await (const event of stream) kinds.push(event.type);
  const { output } = await stream.finalResponse();
  assert.equal(kinds[0], 'response.created');
  assert.equal(kinds.at(-1), 'response.completed');
  assert.equal(kinds.filter((kind) => kind === 'response.output_text.delta').length, 20);
  assert.match(output[0].content[0].text, /^Every satoshi/);
  assert.equal(balance - (await settled(key)), priceOf(10, 20));
});

test('a completion of the old kind pays for all its choices', async () => {
  const { key, balance } = await account();
  const asked = { model: 'demo', prompt: QUESTION, n: 2, max_tokens: 4 };
  const completion = await client(key).completions.create(asked);
  assert.deepEqual(completion.choices.map((choice) => choice.text), Array(2).fill('Every satoshi that came'));
  assert.equal(costOf(completion.usage), priceOf(7, 8));
  assert.equal(balance - (await settled(key)), priceOf(7, 8));
});

test('embeddings are the same vectors in the encoding that the SDK prefers', async () => {
  const { key, balance } = await account();
  const asked = { model: 'demo-embeddings', input: [QUESTION, QUESTION] };
  // Without a word about it, the SDK asks for base64 and decodes it.
  const preferred = await client(key).embeddings.create(asked);
  assert.equal(balance - (await settled(key)), priceOf(14));
  const plain = await client(key).embeddings.create({ ...asked, encoding_format: 'float' });
  assert.deepEqual(preferred.data, plain.data);
  assert.deepEqual(plain.data[1].embedding.slice(0, 4), [0.5, -0.25, 0.125, -1]);
});

test('images are paid by the piece', async () => {
  const { key, balance } = await account();
  const images = await client(key).images.generate({ model: 'demo-image', prompt: 'A nut.', n: 2 });
  assert.ok(images.data.length === 2 && images.data.every((image) => image.url));
  assert.equal(balance - (await settled(key)), 2 * MSAT_PER_IMAGE);
});

test('images that report their usage are paid by it', async () => {
  const { key, balance } = await account();
  const asked = { model: 'demo-image-usage', prompt: 'A nut.', quality: 'low' };
  const images = await client(key).images.generate(asked);
  assert.ok(images.data[0].b64_json);
  assert.equal(costOf(images.usage), priceOf(2, 100));
  assert.equal(balance - (await settled(key)), priceOf(2, 100));
});

test('a streamed image shows what becomes of it', async () => {
  const { key, balance } = await account();
  const asked = { model: 'demo-image-usage', prompt: 'A nut.', quality: 'low', stream: true, partial_images: 1 };
  const kinds = [];
  for await (const event of await client(key).images.generate(asked)) kinds.push(event.type);
  assert.deepEqual(kinds, ['image_generation.partial_image', 'image_generation.completed']);
  assert.equal(balance - (await settled(key)), priceOf(2, 200));
});

test('a recording is uploaded and paid by its seconds', async () => {
  const { key, balance } = await account();
  const asked = { model: 'demo-transcribe', file: await recording(3) };
  const transcript = await client(key).audio.transcriptions.create(asked);
  assert.match(transcript.text, /^Every satoshi/);
  assert.equal(balance - (await settled(key)), 3 * MSAT_PER_SECOND);
});

test('speech is downloaded as it is made and paid by its characters', async () => {
  const { key, balance } = await account();
  const asked = { model: 'demo-speech', input: QUESTION, voice: 'alloy' };
  const speech = await client(key).audio.speech.create(asked);
  assert.equal(speech.headers.get('content-type'), 'audio/mpeg');
  let bytes = 0;
  for await (const piece of speech.body) bytes += piece.length;
  assert.equal(bytes, 100 * QUESTION.length);
  assert.equal(balance - (await settled(key)), QUESTION.length * MSAT_PER_CHARACTER);
});

test('a moderation flags and is paid by the request', async () => {
  const { key, balance } = await account();
  const input = ['Peace.', 'Nothing but violence.'];
  const moderation = await client(key).moderations.create({ model: 'demo-moderation', input });
  assert.deepEqual(moderation.results.map((result) => result.flagged), [false, true]);
  assert.equal(balance - (await settled(key)), MSAT_PER_MODERATION);
});

const failures = [
  ['no-such-model', OpenAI.NotFoundError],
  ['demo-429', OpenAI.RateLimitError],
  ['demo-401', OpenAI.InternalServerError],
];

for (const [model, kind] of failures) {
  test(`${model} is a ${kind.name} to Responses too and costs nothing`, async () => {
    const { key, balance } = await account(200);
    const asked = client(key).responses.create({ model, input: QUESTION });
    await assert.rejects(asked, (error) => error instanceof kind && Boolean(error.requestID));
    assert.equal(await settled(key), balance);
  });
}
