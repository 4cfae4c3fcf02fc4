// The fixture of the transport matrix on the TypeScript SDK 1.x. usage: ts1.mjs http | sse | stdio
// http is Streamable HTTP with sessions at /mcp, sse is HTTP+SSE at /sse and /messages, both on a free loopback port;
// they print "listening on URL" once ready.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { SSEServerTransport } from '@modelcontextprotocol/sdk/server/sse.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import * as types from '@modelcontextprotocol/sdk/types.js';
import * as content from './content.mjs';

// Shorter than the deadline of a check, so that a silent client is reported by the tool.
const ASK_MS = 7_000;

// One server per session: what a session subscribed to and grew is its own.
function fixture() {
  const capabilities = { tools: { listChanged: true }, resources: { subscribe: true }, prompts: {}, completions: {} };
  const server = new Server(content.INFO, { capabilities });
  const session = { grown: false, subscribed: new Set() };
  const found = (result, what) => {
    if (result === undefined) throw new types.McpError(types.ErrorCode.InvalidParams, `Unknown ${what}`);
    return result;
  };
  server.setRequestHandler(types.ListToolsRequestSchema, () => content.tools(session));
  server.setRequestHandler(types.CallToolRequestSchema, async ({ params }, extra) => {
    const result = await content.call(params.name, params.arguments ?? {}, caller(server, session, extra));
    return found(result, `tool: ${params.name}`);
  });
  server.setRequestHandler(types.ListResourcesRequestSchema, content.resources);
  server.setRequestHandler(types.ListResourceTemplatesRequestSchema, content.templates);
  server.setRequestHandler(types.ReadResourceRequestSchema, ({ params }) =>
    found(content.read(params.uri), `resource: ${params.uri}`));
  server.setRequestHandler(types.SubscribeRequestSchema, ({ params }) => {
    session.subscribed.add(params.uri);
    return {};
  });
  server.setRequestHandler(types.UnsubscribeRequestSchema, ({ params }) => {
    session.subscribed.delete(params.uri);
    return {};
  });
  server.setRequestHandler(types.ListPromptsRequestSchema, content.prompts);
  server.setRequestHandler(types.GetPromptRequestSchema, ({ params }) =>
    found(content.prompt(params.name, params.arguments), `prompt: ${params.name}`));
  server.setRequestHandler(types.CompleteRequestSchema, ({ params }) => content.complete(params.argument));
  return server;
}

function caller(server, session, extra) {
  const can = (capability) => {
    if (!server.getClientCapabilities()?.[capability]) throw new Error(`the client did not declare ${capability}`);
  };
  return {
    signal: extra.signal,
    async progress(progress, total) {
      const progressToken = extra._meta?.progressToken;
      if (progressToken === undefined) return;
      await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress, total } });
    },
    async elicit(message, requestedSchema) {
      can('elicitation');
      const request = { method: 'elicitation/create', params: { message, requestedSchema } };
      return extra.sendRequest(request, types.ElicitResultSchema, { timeout: ASK_MS });
    },
    async sample(said) {
      can('sampling');
      const messages = [{ role: 'user', content: { type: 'text', text: said } }];
      const request = { method: 'sampling/createMessage', params: { messages, maxTokens: 100 } };
      return extra.sendRequest(request, types.CreateMessageResultSchema, { timeout: ASK_MS });
    },
    async updated(uri) {
      if (!session.subscribed.has(uri)) return `nobody subscribed to ${uri}`;
      await server.sendResourceUpdated({ uri });
      return 'touched';
    },
    async grow() {
      session.grown = true;
      await server.sendToolListChanged();
    },
  };
}

const refuse = (response, status, message) => {
  const body = { jsonrpc: '2.0', error: { code: -32001, message }, id: null };
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
};

async function streamable(sessions, request, response) {
  const id = request.headers['mcp-session-id'];
  if (id !== undefined && !sessions.has(id)) return refuse(response, 404, 'Session not found');
  let transport = sessions.get(id);
  if (!transport) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (minted) => void sessions.set(minted, transport),
    });
    transport.onclose = () => sessions.delete(transport.sessionId);
    await fixture().connect(transport);
  }
  await transport.handleRequest(request, response);
}

async function sse(sessions, request, response, url) {
  if (request.method === 'GET' && url.pathname === '/sse') {
    const transport = new SSEServerTransport('/messages', response);
    sessions.set(transport.sessionId, transport);
    response.on('close', () => sessions.delete(transport.sessionId));
    return fixture().connect(transport);
  }
  const transport = sessions.get(url.searchParams.get('sessionId'));
  if (request.method !== 'POST' || !transport) return refuse(response, 404, 'Session not found');
  return transport.handlePostMessage(request, response);
}

function serve(handle, path) {
  const sessions = new Map();
  const http = createServer((request, response) => {
    const url = new URL(request.url, 'http://127.0.0.1');
    handle(sessions, request, response, url).catch((error) => {
      if (!response.headersSent) refuse(response, 500, String(error));
    });
  });
  http.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${http.address().port}${path}`));
}

switch (process.argv[2]) {
  case 'http': serve(streamable, '/mcp'); break;
  case 'sse': serve(sse, '/sse'); break;
  case 'stdio': await fixture().connect(new StdioServerTransport()); break;
  default: throw new Error(`there is no transport ${process.argv[2]}: http, sse or stdio`);
}
