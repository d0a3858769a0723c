import type { HoldfastError } from '../errors.ts';
import type { DomainEvent } from './domain-event.ts';

/** A stored event as this process understands it. */
export type ReadEvent =
  /** The event, validated, in the version that this process knows. */
  | { readonly kind: 'event'; readonly event: DomainEvent }
  /** Its version is newer: another process, or a later release of this one, will know it. */
  | { readonly kind: 'hold'; readonly error: HoldfastError }
  /** No process can handle it. */
  | { readonly kind: 'invalid'; readonly error: HoldfastError };

/** Reads stored events: brings them to the version that this process knows, and validates them. */
export interface EventReader {
  read(stored: DomainEvent): ReadEvent | Promise<ReadEvent>;
  /** Milliseconds for which an event of a newer version waits. */
  readonly holdFor: number;
}
