// The TypeScript SDK 1.x as a client: legacy era only, over Streamable HTTP, HTTP+SSE or WebSocket
// (--transport http|sse|ws). Operations and output: see common.mjs.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';
import {
  CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { answers, capabilities, headers, Notifications, parse, run, watchedFetch } from './common.mjs';

const options = parse(process.argv);
const notifications = new Notifications();
const fetched = watchedFetch();
const client = new Client({ name: 'peer-ts1', version: '1.0.0' }, { capabilities: capabilities(options) });

if (!options.plain) {
  client.setRequestHandler(CreateMessageRequestSchema, answers['sampling/createMessage']);
  client.setRequestHandler(ElicitRequestSchema, answers['elicitation/create']);
  client.setRequestHandler(ListRootsRequestSchema, answers['roots/list']);
}
client.fallbackNotificationHandler = async (notification) => notifications.heard(notification);

function transport() {
  const url = new URL(options.url);
  const init = { fetch: fetched, requestInit: { headers: headers(options) } };
  switch (options.transport) {
    case 'http': return new StreamableHTTPClientTransport(url, init);
    case 'sse': return new SSEClientTransport(url, init);
    case 'ws': return new WebSocketClientTransport(url);
    default: throw new Error(`there is no transport ${options.transport}`);
  }
}

const over = transport();
await run(options, {
  fetch: fetched,
  notifications,
  async connect() {
    await client.connect(over);
    return {
      protocolVersion: over.protocolVersion,
      serverInfo: client.getServerVersion(),
      capabilities: client.getServerCapabilities(),
    };
  },
  async close() {
    if (over.terminateSession) await over.terminateSession();
    await client.close();
  },
  operations: {
    'list-tools': () => client.listTools(),
    'list-resources': () => client.listResources(),
    'list-templates': () => client.listResourceTemplates(),
    'list-prompts': () => client.listPrompts(),
    ping: () => client.ping(),
    listen: () => ({ note: 'a legacy client hears without asking' }),
    async call(name, json) {
      const progress = [];
      const onprogress = (step) => progress.push(step);
      const params = { name, arguments: JSON.parse(json) };
      const result = await client.callTool(params, undefined, { onprogress });
      return { ...result, progress };
    },
    read: (uri) => client.readResource({ uri }),
    'get-prompt': (name, json) => client.getPrompt({ name, arguments: JSON.parse(json) }),
    complete: (prompt, name, value) =>
      client.complete({ ref: { type: 'ref/prompt', name: prompt }, argument: { name, value } }),
    subscribe: (uri) => client.subscribeResource({ uri }),
    'set-level': (level) => client.setLoggingLevel(level),
  },
});
