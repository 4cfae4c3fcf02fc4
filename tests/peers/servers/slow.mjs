// The calls of the tool `slow`, by the caller's key: how each began and ended. One memory for the whole process, so
// that a caller may ask after its call in another session; and files, because a server on stdio may be several processes.
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, watch, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const PATIENCE_MS = 5_000;
const MARKS = join(tmpdir(), 'mcpgw-matrix');

export class SlowCalls {
  #calls = new Map();

  // Waits until the call is released or `signal` cancels it; tells which.
  run(key, signal) {
    const call = this.#call(key);
    signal.addEventListener('abort', () => call.end.resolve('cancelled'), { once: true });
    if (signal.aborted) call.end.resolve('cancelled');
    call.start.resolve('started');
    mark(key, 'start', 'started');
    return call.end.promise.then((end) => {
      mark(key, 'end', end);
      return end;
    });
  }

  started(key) {
    return atMost(either(this.#call(key).start.promise, key, 'start'), 'not started');
  }

  release(key) {
    this.#call(key).end.resolve('released');
    return 'released';
  }

  ended(key) {
    return atMost(either(this.#call(key).end.promise, key, 'end'), 'still running');
  }

  #call(key) {
    const known = this.#calls.get(key) ?? { start: Promise.withResolvers(), end: Promise.withResolvers() };
    this.#calls.set(key, known);
    return known;
  }
}

const path = (key, what) => join(MARKS, `${encodeURIComponent(key)}.${what}`);

function mark(key, what, how) {
  mkdirSync(MARKS, { recursive: true });
  writeFileSync(`${path(key, what)}.new`, how);
  renameSync(`${path(key, what)}.new`, path(key, what));
}

// What this process remembers, or another one marks.
function either(remembered, key, what) {
  mkdirSync(MARKS, { recursive: true });
  const marked = Promise.withResolvers();
  const look = () => existsSync(path(key, what)) && marked.resolve(readFileSync(path(key, what), 'utf8'));
  const watcher = watch(MARKS, { persistent: false }, look);
  look();
  return Promise.race([remembered, marked.promise]).finally(() => {
    watcher.close();
    rmSync(path(key, what), { force: true });
  });
}

function atMost(awaited, otherwise) {
  const late = Promise.withResolvers();
  const timer = setTimeout(() => late.resolve(otherwise), PATIENCE_MS);
  return Promise.race([awaited, late.promise]).finally(() => clearTimeout(timer));
}
