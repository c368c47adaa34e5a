// What a cache that keeps its word never shows: a number that goes back, an increment that is lost or given twice, a
// compare-and-swap that two win, a write that its own writer does not read.
import memcached from 'k6/x/memcached';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const retries = new Counter('cas_retries');
export const options = {
    scenarios: { writers: { executor: 'shared-iterations', vus: 10, iterations: 500, maxDuration: '60s' } },
    thresholds: { checks: ['rate==1'], memcached_req_failed: ['rate==0'], memcached_wrong_values: ['count==0'] },
};

export async function setup() {
    for (const key of ['consistent:added', 'consistent:swapped']) await memcached.set(key, 0);
}

let lastAdded = 0, lastSwapped = -1;
export default async function () {
    const own = `consistent:own:${__VU}`, value = `${__VU}:${__ITER}`;
    await memcached.set(own, value, 60);
    check(await memcached.get(own), { 'a writer reads what it wrote': read => read === value });
    const added = await memcached.incr('consistent:added', 1);
    check(added, { 'a counter only grows': n => n > lastAdded });
    lastAdded = added;
    for (;;) {
        const { value: before, cas } = await memcached.gets('consistent:swapped');
        check(Number(before), { 'no reader goes back': n => n >= lastSwapped });
        lastSwapped = Number(before);
        if (await memcached.cas('consistent:swapped', lastSwapped + 1, cas) === 'stored') break;
        retries.add(1);
    }
    check(Number(await memcached.get('consistent:swapped')), { 'a swap is not undone': n => n > lastSwapped });
}

// Every iteration added one in both ways, and none was cut off.
export async function teardown() {
    const added = Number(await memcached.get('consistent:added'));
    const swapped = Number(await memcached.get('consistent:swapped'));
    check([added, swapped], { 'nothing is lost, and nothing counted twice': ([a, b]) => a === b && a === 500 });
}
