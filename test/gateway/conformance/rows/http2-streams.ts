import { CONTINUATION, DATA, END_HEADERS, END_STREAM, encode, frame, HEADERS } from '../http2-frames.ts';
import {
  BAD,
  CHUNKED,
  fields,
  forwarded,
  type Http2Row,
  head,
  post,
  RESET,
  rejected,
  request,
} from '../http2-row.ts';

/** RFC 9113, sections 5, 6 and 8: fields of a connection, trailers, and the order of frames. */
export const HTTP2_STREAMS: readonly Http2Row[] = [
  ['connection', request([['connection', 'close']]), RESET],
  ['keep-alive', request([['keep-alive', 'timeout=1']]), RESET],
  ['proxy-connection', request([['proxy-connection', 'close']]), RESET],
  ['upgrade', request([['upgrade', 'websocket']]), RESET],
  ['te with a coding', request([['te', 'gzip']]), RESET],
  ['an identity', request([['x-holdfast-identity', 'a']]), forwarded('GET /a')],
  ['an identity with underscores', request([['x_holdfast_identity', 'a']]), BAD],
  [
    'forwarding headers',
    request([
      ['x-forwarded-for', '192.0.2.1'],
      ['forwarded', 'for=192.0.2.1'],
      ['x-real-ip', '192.0.2.1'],
    ]),
    forwarded('GET /a'),
  ],
  [
    'an expectation of something else',
    post(
      [
        ['expect', '200-ok'],
        ['content-length', '1'],
      ],
      'a',
    ),
    rejected(417),
  ],

  [
    'trailers',
    [
      ...head(fields({ method: 'POST' }, []), 0),
      frame(DATA, 0, 1, 'a'),
      frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        encode([
          ['x-sum', '1'],
          ['host', 'other.example'],
          ['x-holdfast-identity', 'a'],
        ]),
      ),
    ],
    { result: 200, bytes: CHUNKED },
  ],
  [
    'a pseudo header in trailers',
    [
      ...head(fields({ method: 'POST' }, [['content-length', '1']]), 0),
      frame(DATA, 0, 1, 'a'),
      frame(HEADERS, END_HEADERS | END_STREAM, 1, encode([[':path', '/admin/x']])),
    ],
    RESET,
  ],
  [
    'trailers that do not end the stream',
    [
      ...head(fields({ method: 'POST' }, [['content-length', '1']]), 0),
      frame(HEADERS, END_HEADERS, 1, encode([['x-sum', '1']])),
    ],
    RESET,
  ],
  [
    'a head in several frames',
    [
      frame(HEADERS, END_STREAM, 1, encode(fields({}, []).slice(0, 2))),
      frame(CONTINUATION, END_HEADERS, 1, encode(fields({}, []).slice(2))),
    ],
    forwarded('GET /a'),
  ],
  [
    'a head of 100 KB',
    [
      frame(HEADERS, END_STREAM, 1, encode(fields({}, []))),
      ...Array.from({ length: 7 }, (_, index) =>
        frame(CONTINUATION, index === 6 ? END_HEADERS : 0, 1, encode([[`x-${index}`, 'a'.repeat(15_000)]])),
      ),
    ],
    rejected('ENHANCE_YOUR_CALM'),
  ],
  [
    'a head of 20 KB',
    [
      frame(HEADERS, END_STREAM, 1, encode(fields({}, []))),
      frame(
        CONTINUATION,
        END_HEADERS,
        1,
        encode([
          ['x-a', 'a'.repeat(16_000)],
          ['x-b', 'a'.repeat(300)],
        ]),
      ),
    ],
    rejected('ENHANCE_YOUR_CALM'),
  ],
  [
    'a head that is no HPACK',
    [frame(HEADERS, END_HEADERS | END_STREAM, 1, '\xff\xff\xff\xff\xff')],
    rejected('COMPRESSION_ERROR'),
  ],
  ['a body before its head', [frame(DATA, END_STREAM, 1, 'a')], RESET],
  [
    'a body after its end',
    [...request(), frame(DATA, END_STREAM, 1, 'a')],
    { result: 'STREAM_CLOSED', bytes: '' },
  ],
  [
    'a body beyond the bound of its route',
    [...head(fields({ method: 'POST', path: '/short' }, []), 0), frame(DATA, END_STREAM, 1, '123456789')],
    rejected(413),
  ],
];
