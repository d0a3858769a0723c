import { afterAll } from 'vitest';
import { endFile } from './file-end.ts';

// The hooks of a setup file come after those of the file itself.
afterAll(endFile);
