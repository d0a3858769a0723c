import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { freePort } from '../../test/support/free-port.ts';

/** Whether nginx is installed. */
export function hasNginx(): boolean {
  return spawnSync('nginx', ['-v']).error === undefined;
}

/** Starts nginx with one worker, as the other proxies have one process; it ends with this process. */
export async function startNginx(origin: string): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), 'nginx-'));
  const port = await freePort();
  writeFileSync(join(directory, 'nginx.conf'), configure(directory, port, new URL(origin).host));
  const child = spawn('nginx', ['-c', join(directory, 'nginx.conf'), '-e', 'stderr'], { stdio: 'ignore' });
  process.on('exit', () => {
    child.kill();
    rmSync(directory, { recursive: true, force: true });
  });
  await untilListening(port);
  return `http://127.0.0.1:${port}`;
}

function configure(directory: string, port: number, upstream: string): string {
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${directory}/${kind};`,
  );
  return `
    daemon off; worker_processes 1; pid ${directory}/pid;
    events { worker_connections 1024; }
    http {
      access_log off; keepalive_requests 1000000; client_body_buffer_size 16k; proxy_max_temp_file_size 0;
      ${paths.join(' ')}
      upstream shop { server ${upstream}; keepalive 128; keepalive_requests 1000000; }
      server {
        listen 127.0.0.1:${port};
        location / {
          proxy_pass http://shop; proxy_http_version 1.1; proxy_set_header Connection "";
          proxy_set_header X-Request-ID $request_id;
          proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }
      }
    }`;
}

async function untilListening(port: number): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const socket = connect(port, '127.0.0.1');
    const open = await new Promise((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    socket.destroy();
    if (open) return;
    await pause(20);
  }
  throw new Error('nginx has not started');
}
