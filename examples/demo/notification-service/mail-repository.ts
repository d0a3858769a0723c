export interface Mail {
  readonly to: string;
  readonly text: string;
}

/** Keeps the mails that went out. */
export interface MailRepository {
  add(mail: Mail): Promise<void>;
}
