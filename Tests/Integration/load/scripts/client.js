import memcached from 'k6/x/memcached';
import { check } from 'k6';

const client = new memcached.Client({ pool: 2, timeout: '5s' });
export const options = { vus: 2, iterations: 20, thresholds: { checks: ['rate==1'], memcached_req_failed: ['rate<0.2'] } };

export default async function () {
    const key = `client:${__VU}`, other = `${key}:other`;
    const test = async (name, wanted, promise) => {
        const got = await promise;
        check(got, { [name]: v => JSON.stringify(v) === JSON.stringify(wanted) });
    };
    await Promise.all([client.delete(key), client.delete(other)]);
    await test('get misses', null, client.get(key));
    await test('gets misses', null, client.gets(key));
    await test('add', true, client.add(key, 'a', 60));
    await test('add again', false, client.add(key, 'b'));
    await test('append', true, client.append(key, 'z'));
    await test('prepend', true, client.prepend(key, '0'));
    await test('get', '0az', client.get(key));
    await test('replace', true, client.replace(key, '{"j": "\u00e9\ud83d\ude00"}', { ttl: 60, flags: 7 }));
    await test('unicode', '{"j": "\u00e9\ud83d\ude00"}', client.get(key));
    await test('flags', ['f7'], client.meta('mg', key, ['f', 'v']).then(m => m.flags));
    const { cas } = await client.gets(key);
    check(cas, { 'a CAS value is a BigInt': v => typeof v === 'bigint' && v > 0n });
    await test('cas', 'stored', client.cas(key, 'new', cas));
    await test('cas of an old value', 'exists', client.cas(key, 'newer', cas));
    await test('cas of nothing', 'not_found', client.cas(other, 'x', cas));
    await test('touch', true, client.touch(key, 100));
    await test('gat', 'new', client.gat(key, 100));
    await test('touch nothing', false, client.touch(other, 100));
    await test('incr nothing', null, client.incr(other));
    await client.set(other, 10);
    await test('incr', 15, client.incr(other, 5));
    await test('decr', 14, client.decr(other));
    await client.set(other, '18446744073709551614');
    check(await client.incr(other, 1n), { 'great numbers': v => v === 18446744073709551615n });
    await test('mget', { [key]: 'new', [other]: '18446744073709551615' }, client.mget([key, 'client:none', other]));
    await test('ms', 'HD', client.meta('ms', key, 'T60', 'meta').then(m => m.status));
    await test('mg', 'meta', client.meta('mg', key, 'v').then(m => m.value));
    await test('md', 'HD', client.meta('md', key).then(m => m.status));
    await test('mn', 'MN', client.meta('mn', '').then(m => m.status));
    const bytes = new Uint8Array([0, 255, 1, 254]);
    await client.set(key, bytes);
    check(await client.getBytes(key), { bytes: v => v instanceof Uint8Array && v.join() === '0,255,1,254' });
    check(await client.version(), { version: v => /^\d/.test(v) });
    const refused = await Promise.allSettled([
        client.get('a key'), client.get('k'.repeat(251)), client.set(key, {}), client.cas(key, 'x', 5),
        client.incr(key), client.meta('xx', key),
    ]);
    check(refused, { 'what is wrong is refused': all => all.every(r => r.status === 'rejected') });
    check(refused, { 'in words': all => /1 to 250 bytes/.test(all[0].reason) && /BigInt/.test(all[3].reason) });
}
