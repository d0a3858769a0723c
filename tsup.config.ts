import { copyFile, writeFile } from 'node:fs/promises';
import { defineConfig, type Options } from 'tsup';

/** The entries of the package, each with its file. */
const entry = {
  index: 'src/index.ts',
  redis: 'src/redis/index.ts',
  postgres: 'src/postgres/index.ts',
  gateway: 'src/gateway/index.ts',
};

const shared: Options = {
  target: 'node20',
  splitting: true,
  sourcemap: true,
  removeNodeProtocol: false,
};

/**
 * The JavaScript is ESM only, and `require` loads that same ESM through a wrapper: a class is the
 * same class whichever entry and module format it came from.
 */
async function writeCommonJsWrappers(): Promise<void> {
  for (const name of Object.keys(entry)) {
    await writeFile(`dist/${name}.cjs`, `module.exports = require('./${name}.js');\n`);
  }
}

export default defineConfig([
  {
    ...shared,
    entry: { ...entry, cli: 'src/cli/main.ts' },
    format: 'esm',
    clean: true,
    onSuccess: async () => {
      await writeCommonJsWrappers();
      await copyFile('src/gateway/config/gateway.schema.json', 'dist/gateway.schema.json');
    },
  },
  { ...shared, entry, format: ['esm', 'cjs'], dts: { only: true } },
]);
