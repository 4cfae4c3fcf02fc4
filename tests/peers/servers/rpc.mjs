// The fixture of the transport matrix as a plain JSON-RPC service over POST, on the library jayson: one request per
// POST at /rpc, an array of them at /rpc/batch, answered as JSON. No sessions and no streams, so it never reaches its
// client unasked; a caller that hangs up has cancelled. Prints "listening on URL" once ready.
import { createServer } from 'node:http';
import jayson from 'jayson';
import * as content from './content.mjs';

const VERSIONS = ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25'];
const LARGEST_BODY = 1 << 20;

function caller(signal) {
  const cannot = async () => {
    throw new Error('this server cannot reach its client');
  };
  return { signal, progress: async () => {}, elicit: cannot, sample: cannot, updated: cannot, grow: cannot };
}

function found(result, what) {
  if (result === undefined) throw { code: -32602, message: `Unknown ${what}` };
  return result;
}

const METHODS = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion: VERSIONS.includes(protocolVersion) ? protocolVersion : VERSIONS.at(-1),
    capabilities: { tools: {}, resources: {}, prompts: {}, completions: {} },
    serverInfo: content.INFO,
  }),
  ping: () => ({}),
  'tools/list': () => content.tools({ grown: false }),
  'tools/call': async ({ name, arguments: given }, { signal }) =>
    found(await content.call(name, given ?? {}, caller(signal)), `tool: ${name}`),
  'resources/list': content.resources,
  'resources/templates/list': content.templates,
  'resources/read': ({ uri }) => found(content.read(uri), `resource: ${uri}`),
  'prompts/list': content.prompts,
  'prompts/get': ({ name, arguments: given }) => found(content.prompt(name, given), `prompt: ${name}`),
  'completion/complete': ({ argument }) => content.complete(argument),
};

const method = (run) => (params, context, done) => {
  const running = async () => run(params ?? {}, context);
  running().then((result) => done(null, result), (error) => done({ code: error.code ?? -32603, message: error.message }));
};
const methods = Object.fromEntries(Object.entries(METHODS).map(([name, run]) => [name, method(run)]));
const service = new jayson.Server(methods, { useContext: true });

async function body(request) {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) {
    text += chunk;
    if (text.length > LARGEST_BODY) throw new Error('the body is too large');
  }
  return text;
}

async function answer(request, response) {
  if (request.method !== 'POST' || !['/rpc', '/rpc/batch'].includes(request.url)) return response.writeHead(404).end();
  const hangUp = new AbortController();
  response.on('close', () => hangUp.abort());
  service.call(await body(request), { signal: hangUp.signal }, (error, success) => {
    const told = error ?? success;
    if (told === undefined || told === null) return response.writeHead(204).end();
    return response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(told));
  });
}

const http = createServer((request, response) => void answer(request, response).catch(() => response.destroy()));
http.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${http.address().port}/rpc`));
