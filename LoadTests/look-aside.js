// A cache beside a database, which this script plays: what is not in the cache is read there and put into it; after a
// write, the cached copy is deleted.
import memcached from 'k6/x/memcached';
import { check } from 'k6';
import { Rate } from 'k6/metrics';
import { setTimeout } from 'k6/timers';

const fromCache = new Rate('from_cache');
export const options = {
    scenarios: {
        readers: { executor: 'constant-vus', vus: 10, duration: '3s', exec: 'read' },
        writers: { executor: 'constant-arrival-rate', rate: 20, duration: '3s', preAllocatedVUs: 5, exec: 'write' },
    },
    thresholds: { checks: ['rate==1'], from_cache: ['rate>0.5'], memcached_req_failed: ['rate==0'] },
};

const database = () => new Promise(resolve => setTimeout(resolve, 2));

export async function read() {
    const number = Math.floor(Math.random() * 200), key = `aside:${number}`;
    let row = await memcached.get(key);
    fromCache.add(row !== null);
    if (row === null) {
        await database();
        row = JSON.stringify({ number });
        await memcached.add(key, row, 60);
    }
    check(JSON.parse(row), { 'the row is that of its key': r => r.number === number });
}

export async function write() {
    await database();
    await memcached.delete(`aside:${Math.floor(Math.random() * 200)}`);
}
