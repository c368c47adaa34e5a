import memcached from 'k6/x/memcached';
import { check } from 'k6';

export const options = { vus: 10, duration: '2s', thresholds: { checks: ['rate==1'], vus_max: ['value==10'] } };

export default async function () {
    const key = `constant:${__VU}`;
    check(await memcached.set(key, `${__ITER}`), { stored: ok => ok });
    check(await memcached.get(key), { same: value => value === `${__ITER}` });
}
