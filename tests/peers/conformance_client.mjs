// The client that the official conformance suite judges in client mode: the TypeScript SDK 2.x, told by the suite what to do.
//
// usage: conformance_client [--era legacy|modern] [--through URL] SERVER-URL
//   --era      in which era to speak; that of the suite's protocol version otherwise
//   --through  where to ask for a gateway: POST {"url": SERVER-URL, "scenario"} is answered with {"url", "server"} once a gateway leads
//              there; DELETE of the server's name below it says that nobody needs the way any more
// The suite says the scenario, the protocol version and what else it takes in MCP_CONFORMANCE_*.
// Exits with non-zero where a scenario ends in an error, which the suite shows beside its verdicts.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const MODERN = '2026-07-28';
const SUPPORTED = { legacy: ['2025-11-25', '2025-06-18', '2025-03-26'], modern: [MODERN] };

const environment = (name) => process.env[`MCP_CONFORMANCE_${name}`];
const scenario = environment('SCENARIO');
const version = environment('PROTOCOL_VERSION');
const context = JSON.parse(environment('CONTEXT') ?? '{}');

function parse(argv) {
  const words = argv.slice(2);
  const options = { era: version === MODERN ? 'modern' : 'legacy' };
  while (words.length > 1) options[words.shift().replace(/^--/, '')] = words.shift();
  return { ...options, server: words[0] };
}

async function led(server, through) {
  const body = JSON.stringify({ url: server, scenario });
  const answer = await fetch(through, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
  if (!answer.ok) throw new Error(`no gateway: HTTP ${answer.status}: ${await answer.text()}`);
  return answer.json();
}

// A legacy client begins with the version that is asked for, where it is one of that era.
function versions(era) {
  const known = SUPPORTED[era];
  return [...known.slice(Math.max(0, known.indexOf(version))), ...known.slice(0, Math.max(0, known.indexOf(version)))];
}

function client(era) {
  const mode = era === 'modern' ? { pin: MODERN } : 'legacy';
  const capabilities = { sampling: {}, roots: {}, elicitation: { form: { applyDefaults: true } } };
  const made = new Client(
    { name: 'conformance-client', version: '1.0.0' },
    { capabilities, supportedProtocolVersions: versions(era), versionNegotiation: { mode } },
  );
  made.setRequestHandler('elicitation/create', ({ params }) => {
    const confirms = params.requestedSchema?.properties?.confirmed;
    return { action: 'accept', content: confirms ? { confirmed: true } : {} };
  });
  return made;
}

// An argument for every property, so that a tool can be called whose marks are to be seen.
function filled(tool) {
  const values = { string: 'a', integer: 1, number: 1.5, boolean: true, object: {}, array: ['a'], null: null };
  const properties = Object.entries(tool.inputSchema.properties ?? {});
  return Object.fromEntries(properties.map(([name, { type }]) => [name, values[type]]));
}

const list = async (of) => (await of.listTools()).tools;
const call = (of, name, args = {}) => of.callTool({ name, arguments: args });

const scenarios = {
  initialize: list,
  async tools_call(of) {
    await list(of);
    await call(of, 'add_numbers', { a: 5, b: 3 });
  },
  async 'elicitation-sep1034-client-defaults'(of) {
    await list(of);
    await call(of, 'test_client_elicitation_defaults');
  },
  async 'sse-retry'(of) {
    await list(of);
    await call(of, 'test_reconnection');
  },
  'request-metadata': list,
  async 'sep-2322-client-request-state'(of) {
    await list(of);
    // At once, so that what belongs to one of them could get into another.
    await Promise.all([call(of, 'test_mrtr_echo_state'), call(of, 'test_mrtr_unrelated'), call(of, 'test_mrtr_no_state')]);
    // What has no type is complete to a client of before; this SDK takes it for a fault of a modern server, but does not ask again either.
    await call(of, 'test_mrtr_no_result_type').catch((error) => {
      if (!/resultType/.test(error.message)) throw error;
    });
  },
  async 'http-standard-headers'(of) {
    for (const { name } of await list(of)) await call(of, name);
    for (const { uri } of (await of.listResources()).resources) await of.readResource({ uri });
    for (const { name } of (await of.listPrompts()).prompts) await of.getPrompt({ name });
  },
  async 'http-custom-headers'(of) {
    await list(of);
    for (const { name, arguments: args } of context.toolCalls) await call(of, name, args);
  },
  async 'http-invalid-tool-headers'(of) {
    for (const tool of await list(of)) await call(of, tool.name, filled(tool));
  },
  'json-schema-ref-no-deref': list,
  async 'json-schema-2020-12-preservation'(of) {
    const focal = (await list(of)).find(({ name }) => name === 'json_schema_2020_12_tool');
    await call(of, 'json_schema_echo', { schema: focal.inputSchema });
  },
};

const { era, through, server } = parse(process.argv);
const play = scenarios[scenario];
if (!play) throw new Error(`there is no scenario ${scenario}`);
const way = through ? await led(server, through) : { url: server };
const transport = new StreamableHTTPClientTransport(new URL(way.url));
const speaker = client(era);
try {
  await speaker.connect(transport);
  await play(speaker);
  if (transport.sessionId) await transport.terminateSession();
  await speaker.close();
} finally {
  // The suite waits until nobody is connected to it any more.
  if (through) await fetch(new URL(way.server, through), { method: 'DELETE' });
}
