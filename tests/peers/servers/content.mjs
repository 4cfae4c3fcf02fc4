// What every server of the transport matrix offers, whatever SDK and transport it is built on: the same tools,
// resources, prompt and completion. Knows no SDK; a tool reaches its client only through `to`, which the server gives.
// python1.py says the same in Python.
import { SlowCalls } from './slow.mjs';

export const INFO = { name: 'matrix-fixture', version: '1.0.0' };
export const NOTE = 'fixture://note';
export const TEMPLATE = 'fixture://greeting/{name}';

const PARAMETERS = {
  echo: { text: 'string' },
  progress: { steps: 'integer' },
  elicit: {},
  sample: {},
  slow: { key: 'string' },
  slow_started: { key: 'string' },
  release: { key: 'string' },
  was_cancelled: { key: 'string' },
  touch: {},
  grow: {},
  fail: {},
};
export const TOOL_NAMES = Object.keys(PARAMETERS);
const COLOUR = { type: 'object', properties: { colour: { type: 'string' } }, required: ['colour'] };
const NAMES = ['Ada', 'Alan', 'Grace'];
const slowCalls = new SlowCalls();

function tool(name, parameters) {
  const properties = Object.fromEntries(Object.entries(parameters).map(([key, type]) => [key, { type }]));
  return { name, description: `The fixture's ${name}`, inputSchema: { type: 'object', properties, required: Object.keys(parameters) } };
}

export function tools({ grown }) {
  const fixed = Object.entries(PARAMETERS).map(([name, parameters]) => tool(name, parameters));
  return { tools: grown ? [...fixed, tool('grown', {})] : fixed };
}

const text = (said) => ({ content: [{ type: 'text', text: said }] });
const failed = (said) => ({ ...text(said), isError: true });

// The result of a tool, or undefined if there is no such tool. `to` is the calling client: { signal, progress(step, of),
// elicit(message, schema), sample(prompt), updated(uri), grow() }; what a transport cannot do throws.
export async function call(name, args, to) {
  switch (name) {
    case 'slow': return text(await slowCalls.run(args.key, to.signal));
    case 'slow_started': return text(await slowCalls.started(args.key));
    case 'release': return text(slowCalls.release(args.key));
    case 'was_cancelled': return text(await slowCalls.ended(args.key));
    case 'fail': return failed('failed as asked');
    case 'echo': return text(args.text);
    default: return reaching(name, args, to);
  }
}

// The tools that need the client for more than an answer.
async function reaching(name, args, to) {
  try {
    switch (name) {
      case 'progress':
        for (let step = 1; step <= args.steps; step += 1) await to.progress(step, args.steps);
        return text(`${args.steps} steps`);
      case 'elicit': {
        const { action, content } = await to.elicit('Which colour?', COLOUR);
        return text(`${action} ${JSON.stringify(content ?? null)}`);
      }
      case 'sample': return text((await to.sample('Say something')).content.text);
      case 'touch': return text(await to.updated(NOTE));
      case 'grow': await to.grow(); return text('grown');
      default: return undefined;
    }
  } catch (error) {
    return failed(error.message);
  }
}

export const resources = () => ({ resources: [{ uri: NOTE, name: 'note', mimeType: 'text/plain' }] });
export const templates = () => ({ resourceTemplates: [{ uriTemplate: TEMPLATE, name: 'greeting', mimeType: 'text/plain' }] });
export const prompts = () => ({
  prompts: [{ name: 'greet', description: 'Greets', arguments: [{ name: 'name', required: true }] }],
});

// The contents of a resource, or undefined if there is no such resource.
export function read(uri) {
  const greeted = /^fixture:\/\/greeting\/(\w+)$/.exec(uri)?.[1];
  const found = uri === NOTE ? 'a note' : greeted && `hello ${greeted}`;
  return found && { contents: [{ uri, mimeType: 'text/plain', text: found }] };
}

// The messages of a prompt, or undefined if there is no such prompt.
export function prompt(name, args) {
  if (name !== 'greet') return undefined;
  return { messages: [{ role: 'user', content: { type: 'text', text: `Hello, ${args?.name}` } }] };
}

export function complete({ value }) {
  const values = NAMES.filter((name) => name.startsWith(value));
  return { completion: { values, total: values.length, hasMore: false } };
}
