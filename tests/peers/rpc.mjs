// A caller of plain JSON-RPC over POST, on the library json-rpc-2.0: one request per POST to the URL, or an array of
// them to URL/batch. No handshake, no session, no stream; hanging up is the only way to cancel. Knows the operation
// matrix alone. Options and output: see common.mjs.
import { createJSONRPCRequest, JSONRPCClient } from 'json-rpc-2.0';
import { headers, Notifications, parse, run } from './common.mjs';
import { matrix } from './matrix.mjs';

const options = parse(process.argv);
const notifications = new Notifications();

const client = new JSONRPCClient(async (payload, { signal } = {}) => {
  const url = Array.isArray(payload) ? `${options.url}/batch` : options.url;
  const sent = { 'content-type': 'application/json', accept: 'application/json', ...headers(options) };
  const response = await fetch(url, { method: 'POST', headers: sent, body: JSON.stringify(payload), signal });
  const text = await response.text();
  // A service may put an error's status on its JSON-RPC answer; anything else is not for this client.
  if (!response.headers.get('content-type')?.startsWith('application/json')) {
    throw new Error(`HTTP ${response.status}: ${text}`);
  }
  const answer = JSON.parse(text);
  const lost = !Array.isArray(answer) && (answer.id === null || answer.id === undefined);
  if (lost) throw new Error(`HTTP ${response.status}: ${text}`);
  client.receive(answer);
});

const nowhere = 'not in this transport';
const speaker = {
  absent: {
    progress: nowhere, elicitation: nowhere, sampling: nowhere, subscription: nowhere, list_changed: nowhere,
  },
  listTools: () => client.request('tools/list', {}),
  call: (name, args, { signal } = {}) => client.request('tools/call', { name, arguments: args }, { signal }),
  listResources: () => client.request('resources/list', {}),
  listTemplates: () => client.request('resources/templates/list', {}),
  read: (uri) => client.request('resources/read', { uri }),
  listPrompts: () => client.request('prompts/list', {}),
  getPrompt: (name, args) => client.request('prompts/get', { name, arguments: args }),
  complete: (prompt, name, value) =>
    client.request('completion/complete', { ref: { type: 'ref/prompt', name: prompt }, argument: { name, value } }),
  batch: (requests) =>
    client.requestAdvanced(requests.map(({ method, params }, index) => createJSONRPCRequest(`b${index}`, method, params))),
};

await run(options, {
  fetch: {},
  notifications,
  connect: async () => ({ note: 'plain JSON-RPC has no handshake' }),
  close: async () => {},
  operations: { matrix: () => matrix(speaker, notifications) },
});
