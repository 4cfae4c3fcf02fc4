// The fixture of the transport matrix on the TypeScript SDK 2.x, of 2026-07-28 alone: whoever comes with the handshake of
// before is refused. usage: ts2.mjs http | stdio
// http is Streamable HTTP at /mcp on a free loopback port; it prints "listening on URL" once ready.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { createMcpHandler, inputRequired, ProtocolError, ProtocolErrorCode, Server } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import * as content from './content.mjs';

const CLIENT_INFO = 'io.modelcontextprotocol/clientInfo';
const CAPABILITIES = { tools: { listChanged: true }, resources: { subscribe: true }, prompts: {}, completions: {} };

// `client`: { grown, changes: { toolsChanged(), resourceUpdated(uri) } }, what one client grew and how it hears of it.
function fixture(client) {
  const server = new Server(content.INFO, { capabilities: CAPABILITIES });
  const found = (result, what) => {
    if (result === undefined) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `Unknown ${what}`);
    return result;
  };
  server.setRequestHandler('tools/list', () => content.tools(client));
  server.setRequestHandler('tools/call', async ({ params }, { mcpReq }) =>
    found(await round(params, mcpReq, client), `tool: ${params.name}`));
  server.setRequestHandler('resources/list', content.resources);
  server.setRequestHandler('resources/templates/list', content.templates);
  server.setRequestHandler('resources/read', ({ params }) => found(content.read(params.uri), `resource: ${params.uri}`));
  server.setRequestHandler('prompts/list', content.prompts);
  server.setRequestHandler('prompts/get', ({ params }) =>
    found(content.prompt(params.name, params.arguments), `prompt: ${params.name}`));
  server.setRequestHandler('completion/complete', ({ params }) => content.complete(params.argument));
  return server;
}

// States of calls whose clients were asked; each is good for one retry.
const minted = new Set();

// One round of a call: it ends with a result, or with what the client is asked first. Whoever asks gets the answer in the
// next round, in which the tool runs from its beginning.
function round({ name, arguments: given }, request, client) {
  if (request.inputResponses && !minted.delete(request.requestState())) {
    throw new ProtocolError(ProtocolErrorCode.InvalidParams, 'The state of the request is not one that was asked with');
  }
  const asks = Promise.withResolvers();
  const ask = (key, question) => {
    const answer = request.inputResponses?.[key];
    if (answer !== undefined) return answer;
    const requestState = randomUUID();
    minted.add(requestState);
    asks.resolve(inputRequired({ inputRequests: { [key]: question }, requestState }));
    // Nothing follows in this round.
    return new Promise(() => {});
  };
  return Promise.race([asks.promise, content.call(name, given ?? {}, caller(request, ask, client))]);
}

function caller(request, ask, client) {
  return {
    signal: request.signal,
    async progress(progress, total) {
      const progressToken = request._meta?.progressToken;
      if (progressToken === undefined) return;
      await request.notify({ method: 'notifications/progress', params: { progressToken, progress, total } });
    },
    elicit: async (message, requestedSchema) => ask('elicited', inputRequired.elicit({ message, requestedSchema })),
    sample: async (said) => {
      const messages = [{ role: 'user', content: { type: 'text', text: said } }];
      return ask('sampled', inputRequired.createMessage({ messages, maxTokens: 100 }));
    },
    async updated(uri) {
      await client.changes.resourceUpdated(uri);
      return 'touched';
    },
    async grow() {
      client.grown = true;
      await client.changes.toolsChanged();
    },
  };
}

// There are no sessions to tell clients apart by: those of the matrix call themselves differently each time they run, and
// what one grows and touches is not heard by the others.
const handlers = new Map();

function handlerOf(body) {
  const who = JSON.stringify(body?.params?._meta?.[CLIENT_INFO] ?? null);
  if (!handlers.has(who)) {
    const client = { grown: false };
    const handler = createMcpHandler(() => fixture(client), { legacy: 'reject' });
    client.changes = handler.notify;
    handlers.set(who, handler);
  }
  return handlers.get(who);
}

function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

async function answer(request, response) {
  const { method, headers, url } = request;
  const hungUp = new AbortController();
  response.on('close', () => hungUp.abort());
  const body = method === 'POST' ? await text(request) : undefined;
  const asked = new Request(new URL(url, `http://${headers.host}`), { method, headers, body, signal: hungUp.signal });
  const { status, headers: said, body: stream } = await handlerOf(parsed(body ?? '')).fetch(asked);
  response.writeHead(status, Object.fromEntries(said));
  if (!stream) return response.end();
  return pipeline(Readable.fromWeb(stream), response);
}

function serveHttp() {
  const http = createServer((request, response) => {
    const here = new URL(request.url, 'http://127.0.0.1').pathname === '/mcp';
    if (!here) return response.writeHead(404).end();
    return answer(request, response).catch(() => response.destroy());
  });
  http.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${http.address().port}/mcp`));
}

// One process per client.
function serveOne() {
  const client = { grown: false };
  const server = fixture(client);
  client.changes = {
    toolsChanged: () => server.sendToolListChanged(),
    resourceUpdated: (uri) => server.sendResourceUpdated({ uri }),
  };
  return server;
}

switch (process.argv[2]) {
  case 'http': serveHttp(); break;
  case 'stdio': serveStdio(serveOne, { legacy: 'reject' }); break;
  default: throw new Error(`there is no transport ${process.argv[2]}: http or stdio`);
}
