async function main() {
  const { check } = await import('./check.mjs');
  await check(require, (entry) => import(entry));
}

void main();
