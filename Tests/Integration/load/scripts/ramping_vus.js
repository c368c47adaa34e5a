import { sleep } from 'k6';

export const options = {
    scenarios: {
        ramp: {
            executor: 'ramping-vus', startVUs: 0, gracefulRampDown: '100ms',
            stages: [{ duration: '1s', target: 10 }, { duration: '1s', target: 10 }, { duration: '1s', target: 0 }],
        },
    },
    // The area under the ramp is 20 seconds of users; each iteration takes a twentieth of one.
    thresholds: { iterations: ['count>200', 'count<430'], vus_max: ['value==10'] },
};

export default function () { sleep(0.05); }
