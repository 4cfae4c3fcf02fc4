// The TypeScript SDK 2.x as a client over Streamable HTTP: --mode 2026-07-28 (the default) pins the modern era,
// --mode legacy uses the handshake, --mode auto probes. Operations and output: see common.mjs.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { answers, capabilities, headers, Notifications, parse, run, watchedFetch } from './common.mjs';

const options = parse(process.argv);
const era = options.mode ?? '2026-07-28';
const mode = era === 'legacy' || era === 'auto' ? era : { pin: era };
const notifications = new Notifications();
const fetched = watchedFetch();
const client = new Client(
  { name: 'peer-ts2', version: '1.0.0' },
  { capabilities: capabilities(options), versionNegotiation: { mode } },
);

if (!options.plain) {
  for (const [method, answer] of Object.entries(answers)) client.setRequestHandler(method, answer);
}
client.fallbackNotificationHandler = async (notification) => notifications.heard(notification);

const init = { fetch: fetched, requestInit: { headers: headers(options) } };
const over = new StreamableHTTPClientTransport(new URL(options.url), init);
await run(options, {
  fetch: fetched,
  notifications,
  async connect() {
    await client.connect(over);
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
  operations: {
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
  },
});
