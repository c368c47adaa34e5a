import memcached from 'k6/x/memcached';
import { check, group } from 'k6';
import exec from 'k6/execution';

export const options = {
    iterations: 20, vus: 2,
    thresholds: {
        'checks{color:red}': ['rate==0'], 'checks{color:blue}': ['rate==1'],
        'memcached_reqs{group:::outer::inner}': ['count==20'], 'memcached_reqs{op:get,status:miss}': ['count==20'],
        'memcached_reqs{version:2}': ['count==20'], 'group_duration{group:::outer}': ['avg>=0'],
    },
};

export default async function () {
    check(1, { red: v => v === 2 }, { color: 'red' });
    check(1, { blue: v => v === 1 }, { color: 'blue' });
    await group('outer', async () => {
        await group('inner', async () => { await memcached.get('tags:nothing'); });
        exec.vu.tags.version = 2;
        await memcached.set('tags:key', 'value');
        delete exec.vu.tags.version;
    });
}
