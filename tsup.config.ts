import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { defineConfig, type Options } from 'tsup';
import ts from 'typescript';

/** The entries of the package, each with its file. */
const entry = {
  index: 'src/index.ts',
  redis: 'src/redis/index.ts',
  postgres: 'src/postgres/index.ts',
  gateway: 'src/gateway/index.ts',
};

/** Dependencies without a CommonJS build, and theirs: the CommonJS build holds them itself. */
const ESM_ONLY = ['p-retry', 'is-network-error', 'jose'];

/** Unminified, and without source maps: its stacks are readable as they are. */
const shared: Options = {
  target: 'node20',
  splitting: true,
  removeNodeProtocol: false,
};

/**
 * Has a build of modules come out as CommonJS. That of tsup takes the syntax back to ES2019, which makes the code
 * slower; that of esbuild knows no chunks, so that each entry would have classes of its own.
 */
const asCommonJs: Partial<Options> = {
  format: 'esm',
  outExtension: () => ({ js: '.cjs' }),
  plugins: [
    {
      name: 'commonjs',
      renderChunk(code, { type }) {
        if (type !== 'chunk') return;
        const { ES2023: target } = ts.ScriptTarget;
        const compilerOptions = {
          module: ts.ModuleKind.CommonJS,
          target,
          esModuleInterop: true,
          allowJs: true,
        };
        return { code: ts.transpileModule(code, { fileName: 'chunk.js', compilerOptions }).outputText };
      },
    },
  ],
};

/** Writes the licenses of what is bundled, which have to come along. */
async function writeLicenses(): Promise<void> {
  const texts = ESM_ONLY.map(async (name) => {
    const folder = `node_modules/${name}`;
    const { version } = JSON.parse(await readFile(`${folder}/package.json`, 'utf8'));
    const license = name === 'jose' ? 'LICENSE.md' : 'license';
    return `${name} ${version}\n\n${await readFile(`${folder}/${license}`, 'utf8')}`;
  });
  await writeFile('dist/LICENSES.txt', (await Promise.all(texts)).join('\n'));
}

export default defineConfig([
  {
    ...shared,
    entry: { ...entry, cli: 'src/cli/main.ts' },
    format: 'esm',
    clean: true,
    onSuccess: async () => {
      await copyFile('src/gateway/config/gateway.schema.json', 'dist/gateway.schema.json');
    },
  },
  { ...shared, ...asCommonJs, entry, noExternal: ESM_ONLY, onSuccess: writeLicenses },
  {
    ...shared,
    entry,
    format: ['esm', 'cjs'],
    dts: { only: true, compilerOptions: { stripInternal: true } },
  },
]);
