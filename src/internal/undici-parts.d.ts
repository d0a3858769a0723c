/** Types the parts of undici that `./undici.ts` takes, which have none of their own. */
declare module 'undici/lib/*' {
  const part: unknown;
  export default part;
}
