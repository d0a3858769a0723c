/**
 * Says why a caller is not known: its credentials are invalid, or it cannot be found out now. It is
 * a value and not an error, since strangers cause it at will.
 */
export class AuthFailure {
  readonly reason: 'invalid' | 'unavailable';
  /** One sentence for the client, without double quotes: it is sent in a header, too. */
  readonly detail: string;

  constructor(reason: 'invalid' | 'unavailable', detail: string) {
    this.reason = reason;
    this.detail = detail;
  }
}
