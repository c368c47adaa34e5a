import memcached from 'k6/x/memcached';
import { check } from 'k6';

export const options = { vus: 3, iterations: 30, thresholds: { checks: ['rate==1'] } };

export async function setup() {
    await memcached.set('setup:key', 'made by setup');
    return { key: 'setup:key', list: [1, 2, 3] };
}

export default async function (data) {
    check(data, { 'data arrives': d => d.list.length === 3 && d.list[2] === 3 });
    check(await memcached.get(data.key), { 'setup stored': v => v === 'made by setup' });
}

export async function teardown(data) {
    await memcached.delete(data.key);
    console.log(`torn down ${data.list.join('-')} ${await memcached.get(data.key)}`);
}
