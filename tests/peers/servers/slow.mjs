// The calls of the tool `slow`, by the caller's key: how each began and ended. One memory for the whole process, so
// that a caller may ask after its call in another session.
const PATIENCE_MS = 5_000;

export class SlowCalls {
  #calls = new Map();

  // Waits until the call is released or `signal` cancels it; tells which.
  run(key, signal) {
    const call = this.#call(key);
    signal.addEventListener('abort', () => call.end.resolve('cancelled'), { once: true });
    if (signal.aborted) call.end.resolve('cancelled');
    call.start.resolve('started');
    return call.end.promise;
  }

  started(key) {
    return atMost(this.#call(key).start.promise, 'not started');
  }

  release(key) {
    this.#call(key).end.resolve('released');
    return 'released';
  }

  ended(key) {
    return atMost(this.#call(key).end.promise, 'still running');
  }

  #call(key) {
    const known = this.#calls.get(key) ?? { start: Promise.withResolvers(), end: Promise.withResolvers() };
    this.#calls.set(key, known);
    return known;
  }
}

function atMost(awaited, otherwise) {
  const late = Promise.withResolvers();
  const timer = setTimeout(() => late.resolve(otherwise), PATIENCE_MS);
  return Promise.race([awaited, late.promise]).finally(() => clearTimeout(timer));
}
