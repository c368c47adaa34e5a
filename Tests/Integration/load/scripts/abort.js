import exec from 'k6/execution';
import { sleep } from 'k6';

export const options = { vus: 2, duration: '60s' };

export default function () {
    sleep(0.2);
    if (__VU === 1 && __ITER === 2) exec.test.abort('enough');
}

export function teardown() { console.log('teardown all the same'); }
