import { Counter } from 'k6/metrics';
import { fail } from 'k6';

export const options = {
    scenarios: { each: { executor: 'per-vu-iterations', vus: 4, iterations: 25 } },
    thresholds: { iterations: ['count==100'], 'of_user{vu:1}': ['count==25'], 'of_user{vu:4}': ['count==25'] },
};
const ofUser = new Counter('of_user');
let expected = 0;

export default function () {
    if (__ITER !== expected++) fail(`iteration ${__ITER}`);
    ofUser.add(1, { vu: __VU });
}
