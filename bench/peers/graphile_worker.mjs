// DATABASE_URL=... N=20000 CFG=default|batch C=10 node bench-graphile-worker.mjs
import { run, makeWorkerUtils, runMigrations, Logger } from 'graphile-worker';
import pg from 'pg';
import { url, N, LATN, sleep, out, lat, r2 } from './lib.mjs';
const CFG = process.env.CFG || 'batch', C = Number(process.env.C || 24);
const CHUNK = Number(process.env.CHUNK || 1000);
const LQ = Number(process.env.LQ || 500), CB = Number(process.env.CB ?? 0);
const POOL = Number(process.env.POOL || (CFG === 'batch' ? 10 : C + 2));
const schema = 'gw_bench';
const logger = new Logger(() => () => {});
const admin = new pg.Client(url); await admin.connect();
await admin.query(`drop schema if exists ${schema} cascade`);
const worker = { schema, connectionString: url, maxPoolSize: POOL, concurrentJobs: C, logger, pollInterval: 2000,
  ...(CFG === 'batch' ? { localQueue: { size: LQ }, completeJobBatchDelay: CB, failJobBatchDelay: CB } : {}) };
const preset = { worker };
await runMigrations({ preset });
const utils = await makeWorkerUtils({ preset });
const base = { peer: 'graphile-worker', cfg: CFG, C, ...(CFG === 'batch' ? { localQueue: LQ, completeBatchMs: CB } : {}), pool: POOL };
// 1. bulk enqueue
let t0 = performance.now();
for (let i = 0; i < N; i += CHUNK) {
  const k = Math.min(CHUNK, N - i);
  await utils.addJobs(Array.from({ length: k }, (_, j) => ({ identifier: 'noop', payload: { id: i + j } })));
}
let dt = performance.now() - t0;
out({ ...base, what: 'enqueue', n: N, chunk: CHUNK, jobs_s: Math.round(N / dt * 1000) });
await admin.query(`analyze`);
// 2. drain
let done = 0, resolveAll; const all = new Promise(r => resolveAll = r);
let latStart = null;
const taskList = { noop: () => { if (++done === N) resolveAll(); }, lat: () => { latStart(performance.now()); } };
t0 = performance.now();
let runner = await run({ preset, taskList, noHandleSignals: true });
await all; const tHandled = performance.now() - t0;
for (;;) { const { rows } = await admin.query(`select count(*)::int c from ${schema}._private_jobs`); if (rows[0].c === 0) break; await sleep(2); }
dt = performance.now() - t0;
out({ ...base, what: 'drain', n: N, done, jobs_s: Math.round(N / dt * 1000), handled_jobs_s: Math.round(N / tHandled * 1000) });
// 3. pickup latency on idle queue (same runner, now idle)
await sleep(500);
const a = [], b = [];
for (let i = 0; i < LATN; i++) {
  const p = new Promise(r => latStart = r);
  const s = performance.now();
  const q = utils.addJob('lat', { i }).then(() => performance.now());
  const [st, acked] = await Promise.all([p, q]);
  a.push(st - s); b.push(st - acked);
  await sleep(20 + Math.random() * 20);
}
if (LATN > 0) out({ ...base, what: 'pickup', from_call: lat(a), from_commit_ack: lat(b) });
await runner.stop(); await utils.release(); 
await admin.query(`drop schema if exists ${schema} cascade`); await admin.end();
process.exit(0);
