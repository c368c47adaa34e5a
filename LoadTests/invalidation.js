// How soon a write in the home region is seen in another one, whose cache has an older copy: by its stream, the copy
// is dropped or replaced. The home's server is --server, the other region's -e REPLICA=HOST:PORT; without that,
// the one server is both.
import memcached from 'k6/x/memcached';
import { check } from 'k6';
import { Trend } from 'k6/metrics';
import { setTimeout } from 'k6/timers';

const lag = new Trend('invalidation_lag', true);
const replica = __ENV.REPLICA ? new memcached.Client(__ENV.REPLICA) : memcached;
export const options = {
    scenarios: { writers: { executor: 'constant-vus', vus: 10, duration: __ENV.DURATION || '3s' } },
    thresholds: { invalidation_lag: ['p(99)<1000'], checks: ['rate==1'], memcached_req_failed: ['rate==0'] },
};

export default async function () {
    const key = `fresh:${__VU}:${__ITER % 20}`, value = `new:${__ITER}`;
    await replica.set(key, 'old', 60);
    const began = Date.now();
    await memcached.set(key, value, 60);
    let seen = await replica.get(key);
    while (seen === 'old' && Date.now() - began < 5000) {
        await new Promise(resolve => setTimeout(resolve, 2));
        seen = await replica.get(key);
    }
    lag.add(Date.now() - began);
    check(seen, { 'the old copy is gone': v => v === null || v === value });
}
