// What the TypeScript peers share: the command line, the answers they give a server that asks, and the one JSON
// document they print. They differ in how they connect (see ts1.mjs and ts2.mjs).
//
// usage: PEER --url URL | --command JSON-ARRAY [--token TOKEN] [--mode MODE] [--transport KIND] [--sdk PACKAGE] [--plain]
//   OPERATION...
//   list-tools | list-resources | list-templates | list-prompts | ping | listen
//   call NAME JSON | read URI | get-prompt NAME JSON | complete PROMPT ARGUMENT VALUE
//   subscribe URI | set-level LEVEL | expect NOTIFICATION-METHOD | matrix (see matrix.mjs)
// prints {"connect": OUTCOME, "operations": [OUTCOME...], "notifications": [...]}, where an OUTCOME is
//   {"op", "ok": true, "result"} or {"op", "ok": false, "error": {"code", "message", "data", "httpStatus"?}}.
// Exits with non-zero only when the peer itself cannot run.

import { randomUUID } from 'node:crypto';

const ARITY = {
  'list-tools': 0, 'list-resources': 0, 'list-templates': 0, 'list-prompts': 0, ping: 0, listen: 0,
  call: 2, read: 1, 'get-prompt': 2, complete: 3, subscribe: 1, 'set-level': 1, expect: 1, matrix: 0,
};
const EXPECT_MS = 10_000;
const CLOSE_MS = 5_000;

export function parse(argv) {
  const options = { operations: [], transport: 'http' };
  const words = argv.slice(2);
  while (words.length > 0) {
    const word = words.shift();
    if (word === '--plain') options.plain = true;
    else if (word.startsWith('--')) options[word.slice(2)] = words.shift();
    else if (word in ARITY) {
      const args = words.splice(0, ARITY[word]);
      if (args.length < ARITY[word]) throw new Error(`${word} needs ${ARITY[word]} arguments`);
      options.operations.push({ op: word, args });
    } else throw new Error(`there is no operation ${word}`);
  }
  if (!options.url && !options.command) throw new Error('--url or --command is needed');
  return options;
}

// Who a peer is. No two runs are alike, so that a server without sessions can tell them apart.
export const info = (name) => ({ name, version: `1.0.0+${randomUUID()}` });

export const capabilities = (options) =>
  options.plain ? {} : { sampling: {}, elicitation: {}, roots: { listChanged: true } };

// The answers of a user who accepts everything.
export const answers = {
  'sampling/createMessage': () => ({
    model: 'peer', role: 'assistant', content: { type: 'text', text: 'sampled by the peer' },
  }),
  'roots/list': () => ({ roots: [{ uri: 'file:///peer', name: 'peer' }] }),
  'elicitation/create': ({ params }) => {
    const properties = Object.entries(params.requestedSchema?.properties ?? {});
    return { action: 'accept', content: Object.fromEntries(properties.map(([name, schema]) => [name, filled(schema)])) };
  },
};

function filled(schema) {
  if (schema.default !== undefined) return schema.default;
  const choices = schema.enum ?? schema.oneOf?.map((choice) => choice.const);
  if (choices) return choices[0];
  switch (schema.type) {
    case 'boolean': return true;
    case 'integer': case 'number': return 1;
    case 'array': return [filled(schema.items?.anyOf ? { oneOf: schema.items.anyOf } : schema.items ?? {})];
    default: return 'peer';
  }
}

// Takes the place of the global fetch, which SDKs of every age use, and remembers the last refusal, because their
// errors do not always carry the HTTP status. `streaming` is kept once a GET was answered: what a server of Streamable
// HTTP tells unasked before that is lost.
export function watchedFetch() {
  const fetch = globalThis.fetch;
  const streaming = Promise.withResolvers();
  const watched = async (url, init) => {
    const response = await fetch(url, init);
    if ((init?.method ?? 'GET') === 'GET') streaming.resolve();
    if (response.status >= 400 && (init?.method ?? 'GET') === 'POST') {
      watched.refusal = { httpStatus: response.status };
      const challenge = response.headers.get('www-authenticate');
      if (challenge) watched.refusal.wwwAuthenticate = challenge;
    }
    return response;
  };
  watched.streaming = streaming.promise;
  globalThis.fetch = watched;
  return watched;
}

// Progress as it arrives. The SDKs forget who listens when the result comes in the same chunk as the last steps, so the
// wire is tapped; a token that came back changed, be it only in type, is nobody's.
export function tappedProgress(over) {
  const listening = new Map();
  let next;
  const send = over.send.bind(over);
  over.send = (message, ...rest) => {
    const token = message.params?._meta?.progressToken;
    if (token !== undefined && next) {
      listening.set(token, next);
      next = undefined;
    }
    return send(message, ...rest);
  };
  const deliver = over.onmessage;
  over.onmessage = (message, ...rest) => {
    if (message.method === 'notifications/progress') listening.get(message.params.progressToken)?.(message.params);
    return deliver(message, ...rest);
  };
  // The next request with a token is the listener's; SDKs do not always send it at once.
  return (onprogress, request) => {
    next = onprogress;
    return request();
  };
}

export function headers(options) {
  return options.token ? { Authorization: `Bearer ${options.token}` } : {};
}

// Notifications in order of arrival, and a way to wait for one.
export class Notifications {
  all = [];
  #waiting = [];

  heard(notification) {
    this.all.push(notification);
    this.#waiting = this.#waiting.filter((wakes) => !wakes());
  }

  expect(method, { where = () => true, within = EXPECT_MS } = {}) {
    return new Promise((resolve, reject) => {
      const wakes = () => {
        const found = this.all.find((notification) => notification.method === method && where(notification));
        if (found) {
          clearTimeout(late);
          resolve(found);
        }
        return found !== undefined;
      };
      const late = setTimeout(() => reject(new Error(`no ${method} within ${within} ms`)), within);
      if (!wakes()) this.#waiting.push(wakes);
    });
  }
}

export function within(ms, action) {
  const late = Promise.withResolvers();
  const timer = setTimeout(() => late.reject(new Error(`no answer within ${ms / 1000} s`)), ms);
  return Promise.race([action, late.promise]).finally(() => clearTimeout(timer));
}

async function outcome(op, fetched, action) {
  fetched.refusal = undefined;
  try {
    return { op, ok: true, result: (await action()) ?? {} };
  } catch (error) {
    const told = { code: error.code ?? null, message: String(error.message ?? error) };
    if (error.data !== undefined) told.data = error.data;
    return { op, ok: false, error: { ...told, ...fetched.refusal } };
  }
}

// Runs the operations with `peer`: { connect(), close(), operations: {NAME: (...args) => result}, notifications, fetch }.
export async function run(options, peer) {
  const document = {
    connect: await outcome('connect', peer.fetch, () => peer.connect()),
    operations: [],
    notifications: peer.notifications.all,
  };
  if (document.connect.ok) {
    for (const { op, args } of options.operations) {
      const action =
        op === 'expect' ? () => peer.notifications.expect(args[0]) : () => peer.operations[op](...args);
      document.operations.push(await outcome(op, peer.fetch, action));
    }
    await within(CLOSE_MS, peer.close()).catch(() => {});
  }
  await new Promise((written) => process.stdout.write(JSON.stringify(document) + '\n', written));
  process.exit(0);
}
