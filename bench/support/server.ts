import { createServer } from 'node:net';

/**
 * The other side of the client benchmark, in a process of its own: responds to each request, once
 * its head is there, with the same JSON. It parses nothing, so that only the clients are measured.
 */
const body = JSON.stringify({
  id: 'u1',
  name: 'Ada Lovelace',
  email: 'ada@example.com',
  roles: ['admin', 'user'],
  address: { street: "12 St James's Square", city: 'London' },
  active: true,
});
const answer = Buffer.from(
  `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
);
const END_OF_HEAD = 0x0d0a0d0a;

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => {});
  socket.on('data', (data) => {
    if (data.length >= 4 && data.readUInt32BE(data.length - 4) === END_OF_HEAD) socket.write(answer);
  });
});
server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  if (address !== null && typeof address === 'object') process.send?.(address.port);
});
process.on('disconnect', () => process.exit());
