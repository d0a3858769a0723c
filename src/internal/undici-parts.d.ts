/** The inner modules of undici that `./undici.ts` imports; they have no types of their own. */
declare module 'undici/lib/*' {
  const part: unknown;
  export default part;
}
