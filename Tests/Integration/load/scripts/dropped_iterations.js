import { sleep } from 'k6';

export const options = {
    scenarios: {
        busy: { executor: 'constant-arrival-rate', rate: 20, duration: '2s', preAllocatedVUs: 2, maxVUs: 3 },
    },
    // Three users of 400 ms serve 7.5 a second of the 20.
    thresholds: { dropped_iterations: ['count>20'], vus_max: ['value==3'] },
};

export default function () { sleep(0.4); }
