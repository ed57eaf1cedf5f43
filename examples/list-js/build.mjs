// Turns a fetch handler into a wasi:http component.
// usage: node build.mjs NODE_MODULES WIT SOURCE OUT
import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, wit, source, out] = process.argv.slice(2).map((path) => resolve(path));
const tools = `${modules}/@bytecodealliance`;
const componentizer = `${tools}/componentize-js/src/componentize.js`;

// The splicer is itself a component, run by the shim; it sees files only once given a root.
const resolver = createRequire(componentizer);
const shimPath = resolver.resolve('@bytecodealliance/preview2-shim/filesystem');
const shim = await import(pathToFileURL(shimPath).href);
shim._addPreopen('/', '/');

const { componentize } = await import(pathToFileURL(componentizer).href);
const { component } = await componentize(await readFile(source, 'utf8'), {
  witPath: wit,
  worldName: 'wasi:http/proxy@0.2.10',
  sourceName: 'app.js',
});
await writeFile(out, component);
