// The checks of the transport matrix, made by one client in one connection against the fixture of servers/content.mjs.
// Knows no SDK: a `speaker` says what to send. Every check has a deadline, and its detail is the same on every run, so
// that the exact answer of an exception can be committed.
//
// speaker: { listTools(), call(name, args, { onprogress?, signal? }?), listResources(), listTemplates(), read(uri),
//   subscribe(uri), unsubscribe(uri), listPrompts(), getPrompt(name, args), complete(prompt, argument, value),
//   batch?(requests), absent: { CHECK: REASON } }
import { randomUUID } from 'node:crypto';
import { within } from './common.mjs';
import { NOTE, TEMPLATE, TOOL_NAMES } from './servers/content.mjs';

const CHECK_MS = 10_000;
const HEARING_MS = 5_000;

const CHECKS = {
  async 'tools/list'(speaker) {
    const names = (await speaker.listTools()).tools.map(({ name }) => name);
    const missing = TOOL_NAMES.filter((name) => !names.includes(name));
    expect(missing.length === 0, `missing: ${missing.join(' ')}`);
    return `${TOOL_NAMES.length} tools`;
  },

  async 'tools/call'(speaker) {
    return same(said(await speaker.call('echo', { text: 'hello' })), 'hello');
  },

  async progress(speaker) {
    const steps = [];
    await speaker.call('progress', { steps: 3 }, { onprogress: ({ progress, total }) => steps.push(`${progress}/${total}`) });
    return same(steps.join(' ') || 'no progress was heard', '1/3 2/3 3/3');
  },

  async elicitation(speaker) {
    return same(said(await speaker.call('elicit', {})), 'accept {"colour":"peer"}');
  },

  async sampling(speaker) {
    return same(said(await speaker.call('sample', {})), 'sampled by the peer');
  },

  async 'resources/read'(speaker) {
    const { resources } = await speaker.listResources();
    expect(resources.some(({ uri }) => uri === NOTE), `${NOTE} is not listed`);
    const { resourceTemplates } = await speaker.listTemplates();
    expect(resourceTemplates.some(({ uriTemplate }) => uriTemplate === TEMPLATE), `${TEMPLATE} is not listed`);
    const texts = [];
    for (const uri of [NOTE, 'fixture://greeting/Ada']) texts.push((await speaker.read(uri)).contents[0].text);
    return same(texts.join(', '), 'a note, hello Ada');
  },

  async subscription(speaker, notifications) {
    await speaker.subscribe(NOTE);
    const ours = ({ params }) => params?.uri === NOTE;
    const heard = notifications.expect('notifications/resources/updated', { where: ours, within: HEARING_MS });
    const [, touched] = await Promise.all([heard, speaker.call('touch', {}).then(said)]);
    await speaker.unsubscribe(NOTE);
    return same(touched, 'touched');
  },

  async 'prompts/get'(speaker) {
    const { prompts } = await speaker.listPrompts();
    expect(prompts.some(({ name }) => name === 'greet'), 'the prompt greet is not listed');
    return same((await speaker.getPrompt('greet', { name: 'Ada' })).messages[0].content.text, 'Hello, Ada');
  },

  async completion(speaker) {
    return same((await speaker.complete('greet', 'name', 'A')).completion.values.join(' '), 'Ada Alan');
  },

  async cancellation(speaker) {
    const key = randomUUID();
    const stop = new AbortController();
    const early = speaker.call('slow', { key }, { signal: stop.signal }).then(said).catch(told);
    const started = speaker.call('slow_started', { key }).then(said);
    same(await Promise.race([started, early.then((end) => `slow ended too early: ${end}`)]), 'started');
    stop.abort();
    return same(said(await speaker.call('was_cancelled', { key })), 'cancelled');
  },

  async list_changed(speaker, notifications) {
    const heard = notifications.expect('notifications/tools/list_changed', { within: HEARING_MS });
    await Promise.all([heard, speaker.call('grow', {}).then(said)]);
    const { tools } = await speaker.listTools();
    expect(tools.some(({ name }) => name === 'grown'), 'the new tool is not listed');
    return 'heard, and the new tool is listed';
  },

  async error(speaker) {
    const failing = await speaker.call('fail', {});
    expect(failing.isError === true, `a failing tool is no error: ${failing.content[0].text}`);
    same(failing.content[0].text, 'failed as asked');
    const unknown = await speaker.call('no_such_tool', {}).then(said, told);
    return same(unknown, 'error -32602: Unknown tool: no_such_tool');
  },

  async batch(speaker) {
    const answers = await speaker.batch([
      { method: 'tools/call', params: { name: 'echo', arguments: { text: 'one' } } },
      { method: 'no/such/method', params: {} },
      { method: 'resources/read', params: { uri: NOTE } },
    ]);
    const [echo, refused, note] = answers;
    // Which error it is differs from server to server.
    return same(`${said(echo.result)}, ${refused.error ? 'refused' : 'taken'}, ${note.result?.contents[0].text}`, 'one, refused, a note');
  },
};

function expect(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}

function same(observed, expected) {
  expect(observed === expected, observed);
  return observed;
}

function said(result) {
  const text = result.content[0].text;
  expect(!result.isError, `isError: ${text}`);
  return text;
}

// An error in stable words: the SDKs' repeated prefixes, ports and ids are left out.
function told(error) {
  const message = String(error.message ?? error)
    .replace(/^(MCP error -?\d+: )+/, '')
    .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/gi, 'ID')
    .replace(/127\.0\.0\.1:\d+/g, 'HOST');
  return typeof error.code === 'number' ? `error ${error.code}: ${message}` : message;
}

// One [{ check, verdict: "passed" | "failed" | "absent", detail }] of all checks.
export async function matrix(speaker, notifications) {
  const report = [];
  for (const [check, made] of Object.entries(CHECKS)) {
    if (check in speaker.absent) {
      report.push({ check, verdict: 'absent', detail: speaker.absent[check] });
      continue;
    }
    try {
      report.push({ check, verdict: 'passed', detail: await within(CHECK_MS, made(speaker, notifications)) });
    } catch (error) {
      report.push({ check, verdict: 'failed', detail: told(error) });
    }
  }
  return report;
}
