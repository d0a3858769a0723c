import fc from 'fast-check';

/** A text of the first characters of Unicode, control characters included. */
export const anyText = fc
  .array(fc.nat(0x17f), { maxLength: 12 })
  .map((codes) => String.fromCharCode(...codes));
