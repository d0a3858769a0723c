import { createRequire } from 'node:module';
import { check } from './check.mjs';

await check((entry) => import(entry), createRequire(import.meta.url));
