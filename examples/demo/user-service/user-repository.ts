export interface User {
  readonly id: string;
  readonly email: string;
  readonly name: string;
  /** A user who is not active can place no orders. */
  readonly active: boolean;
  /** Counts the changes, from 1 on. */
  readonly version: number;
}

export type NewUser = Pick<User, 'id' | 'email' | 'name'>;
export type UserChanges = Partial<Pick<User, 'email' | 'name'>>;

/** Keeps users. It knows nothing of HTTP, and its callers nothing of SQL. */
export interface UserRepository {
  /** @throws ConflictError if the id is taken */
  create(user: NewUser): Promise<User>;
  /** @throws NotFoundError */
  get(id: string): Promise<User>;
  /**
   * Changes a user who still has the version that the caller has seen: of two who change the same
   * version, the second one is told, and the first one's change is not lost.
   *
   * @throws NotFoundError
   * @throws ConflictError if the user has another version by now
   * @throws InvalidError for a field that is none of UserChanges
   */
  update(id: string, changes: UserChanges, version: number): Promise<User>;
  /** @throws NotFoundError */
  deactivate(id: string): Promise<User>;
  /** @throws NotFoundError */
  delete(id: string): Promise<void>;
}
