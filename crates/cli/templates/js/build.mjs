// Turns app.js into a wasi:http component.
// usage: node build.mjs OUT
import { cp, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';
import * as shim from '@bytecodealliance/preview2-shim/filesystem';

// jco ships the definitions of the one version; the engine inside componentize-js speaks the other.
// Both are WASI 0.2, and what the engine uses is in both.
const shipped = '0.2.12';
const spoken = '0.2.10';

await rm('wit', { recursive: true, force: true });
await mkdir('wit');
const builtin = `node_modules/@bytecodealliance/jco/lib/wit/builtin/${shipped}`;
await cp(builtin, 'wit/deps', { recursive: true });
for (const name of await readdir('wit/deps')) {
  const file = `wit/deps/${name}/package.wit`;
  await writeFile(file, (await readFile(file, 'utf8')).replaceAll(shipped, spoken));
}
const world = `world http {\n  include wasi:http/proxy@${spoken};\n}\n`;
await writeFile('wit/world.wit', `package dunlin:function;\n\n${world}`);

// The tools are components themselves: they see files only once they are given a root.
shim._addPreopen?.('/', '/');

const { component } = await componentize(await readFile('app.js', 'utf8'), {
  witPath: `${process.cwd()}/wit`,
  worldName: 'http',
  sourceName: 'app.js',
});
await writeFile(process.argv[2], component);
