// Every operation of the client, a few times.
import memcached from 'k6/x/memcached';
import { check, group } from 'k6';

export const options = {
    vus: 5, iterations: 100,
    thresholds: { checks: ['rate==1'], memcached_req_failed: ['rate==0'], memcached_req_duration: ['p(95)<250'] },
};

export default async function () {
    const key = `smoke:${__VU}`;
    await group('values', async () => {
        check(await memcached.set(key, 'one', 60), { 'set stores': v => v });
        check(await memcached.get(key), { 'get reads it': v => v === 'one' });
        check(await memcached.append(key, ' two'), { 'append adds to it': v => v });
        const { value, cas } = await memcached.gets(key);
        check(value, { 'gets reads all of it': v => v === 'one two' });
        check(await memcached.cas(key, 'three', cas), { 'cas replaces it': v => v === 'stored' });
        check(await memcached.cas(key, 'four', cas), { 'but once': v => v === 'exists' });
        check(await memcached.mget([key, 'smoke:none']), { 'mget leaves out what is not there': v => v[key] === 'three' });
        check(await memcached.touch(key, 30), { 'touch finds it': v => v });
        check(await memcached.delete(key), { 'delete removes it': v => v });
        check(await memcached.get(key), { 'and it is gone': v => v === null });
    });
    await group('numbers', async () => {
        await memcached.set(key, 40);
        check(await memcached.incr(key, 2), { 'incr adds': v => v === 42 });
        check(await memcached.decr(key, 50), { 'decr stops at 0': v => v === 0 });
        check(await memcached.delete(key), { 'delete removes it': v => v });
    });
}
