/** What `./undici.ts` takes from within undici, which has no types of its own. */
declare module 'undici/lib/*' {
  const part: unknown;
  export default part;
}
