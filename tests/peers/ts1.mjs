// The TypeScript SDK 1.x as a client: legacy era only, over Streamable HTTP, HTTP+SSE, WebSocket or a child's stdio
// (--transport http|sse|ws|stdio). --sdk names an older release by its alias in tests/foreign/package.json.
// Operations and output: see common.mjs.
import { answers, capabilities, headers, info, Notifications, parse, run, tappedProgress, watchedFetch, within } from './common.mjs';
import { matrix } from './matrix.mjs';

const CONNECT_MS = 20_000;
const STREAM_MS = 5_000;

const options = parse(process.argv);
const fetched = watchedFetch();
const sdk = options.sdk ?? '@modelcontextprotocol/sdk';
const { Client } = await import(`${sdk}/client/index.js`);
const types = await import(`${sdk}/types.js`);

const notifications = new Notifications();
const client = new Client(info('peer-ts1'), { capabilities: capabilities(options) });
const version = watchedVersion();

if (!options.plain) {
  client.setRequestHandler(types.CreateMessageRequestSchema, answers['sampling/createMessage']);
  // Elicitation came with 2025-06-18.
  if (types.ElicitRequestSchema) client.setRequestHandler(types.ElicitRequestSchema, answers['elicitation/create']);
  client.setRequestHandler(types.ListRootsRequestSchema, answers['roots/list']);
}
client.fallbackNotificationHandler = async (notification) => notifications.heard(notification);

// The negotiated version, which older releases tell nobody.
function watchedVersion() {
  const watched = {};
  const request = client.request.bind(client);
  client.request = async (asked, ...rest) => {
    const result = await request(asked, ...rest);
    if (asked.method === 'initialize') watched.negotiated = result.protocolVersion;
    return result;
  };
  return watched;
}

async function transport() {
  const load = async (file) => import(`${sdk}/client/${file}.js`);
  const init = { requestInit: { headers: headers(options) } };
  switch (options.transport) {
    case 'http': return new (await load('streamableHttp')).StreamableHTTPClientTransport(new URL(options.url), init);
    case 'sse': {
      // Older releases send the headers of requestInit with POSTs only.
      const withHeaders = (url, given) => fetch(url, { ...given, headers: { ...given?.headers, ...headers(options) } });
      const eventSourceInit = options.token ? { fetch: withHeaders } : undefined;
      return new (await load('sse')).SSEClientTransport(new URL(options.url), { ...init, eventSourceInit });
    }
    case 'ws': return new (await load('websocket')).WebSocketClientTransport(new URL(options.url));
    case 'stdio': {
      const [command, ...args] = JSON.parse(options.command);
      return new (await load('stdio')).StdioClientTransport({ command, args, env: process.env });
    }
    default: throw new Error(`there is no transport ${options.transport}`);
  }
}

const over = await transport();
let listenedTo = (_, request) => request();
const operations = {
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
  async matrix() {
    if (options.transport === 'http') await within(STREAM_MS, fetched.streaming).catch(() => {});
    return matrix(speaker, notifications);
  },
};

const speaker = {
  absent: {
    batch: 'the SDK sends no batches',
    ...(types.ElicitRequestSchema ? {} : { elicitation: 'not in this version' }),
  },
  listTools: operations['list-tools'],
  call: (name, args, { onprogress, signal } = {}) =>
    listenedTo(onprogress, () =>
      client.callTool({ name, arguments: args }, undefined, { signal, ...(onprogress && { onprogress: () => {} }) })),
  listResources: operations['list-resources'],
  listTemplates: operations['list-templates'],
  read: operations.read,
  subscribe: operations.subscribe,
  unsubscribe: (uri) => client.unsubscribeResource({ uri }),
  listPrompts: operations['list-prompts'],
  getPrompt: (name, args) => client.getPrompt({ name, arguments: args }),
  complete: operations.complete,
};

await run(options, {
  fetch: fetched,
  notifications,
  async connect() {
    await within(CONNECT_MS, client.connect(over));
    listenedTo = tappedProgress(over);
    return {
      protocolVersion: version.negotiated,
      serverInfo: client.getServerVersion(),
      capabilities: client.getServerCapabilities(),
    };
  },
  async close() {
    if (over.terminateSession) await over.terminateSession();
    await client.close();
  },
  operations,
});
