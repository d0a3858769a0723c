/** A body that breaks off with the error after its first chunk. */
export async function* failingBody(
  error: Error = new Error('the uploader went away'),
): AsyncGenerator<Uint8Array> {
  yield Buffer.from('a');
  throw error;
}
