// Preloaded with --import: lets the peers import the packages of tests/foreign, which are installed in
// .cache/foreign/node and so not above this folder, where Node would look.
import { registerHooks } from 'node:module';
import { pathToFileURL } from 'node:url';

const here = new URL('.', import.meta.url).href;
const installed = pathToFileURL(`${import.meta.dirname}/../../.cache/foreign/node/package.json`).href;

registerHooks({
  resolve(specifier, context, next) {
    const bare = !/^(\.|\/|[a-z]+:)/.test(specifier);
    const ours = context.parentURL?.startsWith(here);
    return next(specifier, bare && ours ? { ...context, parentURL: installed } : context);
  },
});
