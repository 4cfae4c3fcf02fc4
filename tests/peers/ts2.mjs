// The TypeScript SDK 2.x as a client over Streamable HTTP, or over the stdio of --command: --mode 2026-07-28 (the default)
// pins the modern era, --mode legacy uses the handshake, --mode auto probes. Operations and output: see common.mjs.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { answers, capabilities, headers, info, Notifications, parse, run, tappedProgress, watchedFetch } from './common.mjs';
import { matrix } from './matrix.mjs';

const options = parse(process.argv);
const era = options.mode ?? '2026-07-28';
const mode = era === 'legacy' || era === 'auto' ? era : { pin: era };
const notifications = new Notifications();
const fetched = watchedFetch();
const client = new Client(info('peer-ts2'), { capabilities: capabilities(options), versionNegotiation: { mode } });

if (!options.plain) {
  for (const [method, answer] of Object.entries(answers)) client.setRequestHandler(method, answer);
}
client.fallbackNotificationHandler = async (notification) => notifications.heard(notification);

function transport() {
  if (options.command) {
    const [command, ...args] = JSON.parse(options.command);
    return new StdioClientTransport({ command, args, env: process.env });
  }
  const init = { fetch: fetched, requestInit: { headers: headers(options) } };
  return new StreamableHTTPClientTransport(new URL(options.url), init);
}

const over = transport();
let listenedTo = (_, request) => request();
const operations = {
  'list-tools': () => client.listTools(),
  'list-resources': () => client.listResources(),
  'list-templates': () => client.listResourceTemplates(),
  'list-prompts': () => client.listPrompts(),
  ping: () => client.ping(),
  async listen() {
    if (era === 'legacy') return { note: 'a legacy client hears without asking' };
    const everything = { toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true };
    const subscription = await client.listen(everything);
    return { honored: subscription.honoredFilter ?? subscription.filter ?? null };
  },
  async call(name, json) {
    const progress = [];
    const onprogress = (step) => progress.push(step);
    const result = await client.callTool({ name, arguments: JSON.parse(json) }, { onprogress });
    return { ...result, progress };
  },
  read: (uri) => client.readResource({ uri }),
  'get-prompt': (name, json) => client.getPrompt({ name, arguments: JSON.parse(json) }),
  complete: (prompt, name, value) =>
    client.complete({ ref: { type: 'ref/prompt', name: prompt }, argument: { name, value } }),
  subscribe: (uri) => client.subscribeResource({ uri }),
  'set-level': (level) => client.setLoggingLevel(level),
  // In the modern era alone: what is told unasked has to be listened for first.
  async matrix() {
    await client.listen({ toolsListChanged: true });
    return matrix(speaker, notifications);
  },
};

// One stream per resource.
const subscriptions = new Map();

const speaker = {
  absent: { batch: 'not in this version' },
  listTools: operations['list-tools'],
  call: (name, args, { onprogress, signal } = {}) =>
    listenedTo(onprogress, () =>
      client.callTool({ name, arguments: args }, { signal, ...(onprogress && { onprogress: () => {} }) })),
  listResources: operations['list-resources'],
  listTemplates: operations['list-templates'],
  read: operations.read,
  subscribe: async (uri) => subscriptions.set(uri, await client.listen({ resourceSubscriptions: [uri] })),
  unsubscribe: (uri) => subscriptions.get(uri).close(),
  listPrompts: operations['list-prompts'],
  getPrompt: (name, args) => client.getPrompt({ name, arguments: args }),
  complete: operations.complete,
};

await run(options, {
  fetch: fetched,
  notifications,
  async connect() {
    await client.connect(over);
    listenedTo = tappedProgress(over);
    return {
      protocolVersion: client.getNegotiatedProtocolVersion(),
      serverInfo: client.getServerVersion(),
      capabilities: client.getServerCapabilities(),
    };
  },
  async close() {
    if (over.sessionId) await over.terminateSession();
    await client.close();
  },
  operations,
});
