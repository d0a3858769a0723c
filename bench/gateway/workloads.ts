/** The requests with which proxies are compared. */
export const WORKLOADS = {
  get: { head: 'GET /small HTTP/1.1', body: '' },
  post: {
    head: 'POST /orders HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 10000',
    body: 'x'.repeat(10_000),
  },
  download: { head: 'GET /large HTTP/1.1', body: '' },
} as const;

export type WorkloadName = keyof typeof WORKLOADS;

/** Bytes of the bodies that the upstream responds with. */
export const SMALL = 150;
export const LARGE = 10_000_000;
