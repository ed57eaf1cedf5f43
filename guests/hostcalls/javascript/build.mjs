// Turns the guest into a component of the world of ../guest.wit.
// usage: node build.mjs NODE_MODULES WIT SOURCE OUT
import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, wit, source, out] = process.argv.slice(2).map((path) => resolve(path));
const tools = `${modules}/@bytecodealliance`;
const componentizer = `${tools}/componentize-js/src/componentize.js`;

// The splicer is itself a component, run by the shim; it sees files only once given a root.
const resolver = createRequire(componentizer);
const shimPath = resolver.resolve('@bytecodealliance/preview2-shim/filesystem');
const shim = await import(pathToFileURL(shimPath).href);
shim._addPreopen('/', '/');

// One source is all that the componentizer takes: the dispatcher comes first, in the same module.
const dispatch = await readFile(`${dirname(source)}/dispatch.js`, 'utf8');
const app = await readFile(source, 'utf8');
const whole = dispatch.replace('export const', 'const') + app.replace(/^import .*dispatch.*$/m, '');

const { componentize } = await import(pathToFileURL(componentizer).href);
const { component } = await componentize(whole, {
  witPath: wit,
  worldName: 'dunlin:hostcalls-guest/guest',
  sourceName: 'app.js',
});
await writeFile(out, component);
