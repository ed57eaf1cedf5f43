// Does what a script says, by the calls of `dunlin:platform`. See ../README.md.
import { calls } from './dispatch.js';

const BUFFER_BYTES_MAX = 1 << 20;
const LINES_MAX = 256;
const INVALID = -3n;

// In the order of their numbers in the table, from 1 on.
const errors = ['denied', 'not-found', 'invalid', 'conflict', 'too-large', 'exhausted', 'timed-out',
  'failed', 'unavailable'];

class Malformed extends Error {}

function unsigned(word) {
  if (!/^[0-9]+$/.test(word)) throw new Malformed(word);
  return BigInt(word);
}

function result(word, results) {
  const at = Number(unsigned(word));
  if (at >= results.length) throw new Malformed(word);
  return results[at];
}

function number(word, results) {
  if (!word.startsWith('$')) return unsigned(word);
  const [place, more] = word.slice(1).split('+');
  return result(place, results) + unsigned(more ?? '0');
}

function small(word, results) {
  const value = number(word, results);
  if (value >= 2n ** 32n) throw new Malformed(word);
  return Number(value);
}

function buffer(word, results) {
  const length = small(word, results);
  if (length > BUFFER_BYTES_MAX) throw new Malformed(word);
  return length;
}

function bytes(word, results) {
  if (word === '-') return new Uint8Array(0);
  if (word.startsWith('@')) {
    const handles = word.slice(1).split(',').map((place) => Number(result(place, results)));
    return new Uint8Array(Uint32Array.from(handles).buffer);
  }
  if (!/^([0-9a-f]{2})+$/.test(word)) throw new Malformed(word);
  return Uint8Array.from(word.match(/../g), (pair) => parseInt(pair, 16));
}

function text(word, results) {
  return new TextDecoder().decode(bytes(word, results));
}

const take = { u: small, U: number, t: text, b: bytes, o: buffer };

const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, '0')).join('') || '-';

function run(line, results) {
  const [name, ...words] = line.split(' ');
  if (!Object.hasOwn(calls, name)) return [INVALID, 'bad'];
  const [call, letters] = calls[name];
  if (words.length !== letters.length) return [INVALID, 'bad'];
  let args;
  try {
    args = words.map((word, at) => take[letters[at]](word, results));
  } catch (error) {
    if (error instanceof Malformed) return [INVALID, 'bad'];
    throw error;
  }
  try {
    const answer = call(...args);
    if (typeof answer === 'bigint') return [answer, `ok ${answer}`];
    return [BigInt(answer.length), `ok ${answer.length} ${hex(answer)}`];
  } catch (error) {
    const place = errors.indexOf(error.payload);
    if (place < 0) throw error;
    return [BigInt(-1 - place), `err ${-1 - place}`];
  }
}

async function answer(request) {
  try {
    const script = await request.text();
    const results = [];
    let answers = '';
    for (const line of script.split('\n').filter((line) => line).slice(0, LINES_MAX)) {
      const [value, text] = run(line, results);
      results.push(value);
      answers += `${text}\n`;
    }
    return new Response(answers);
  } catch (error) {
    return new Response(`${error.stack}\n`, { status: 500 });
  }
}

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));
