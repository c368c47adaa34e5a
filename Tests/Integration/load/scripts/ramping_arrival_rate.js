export const options = {
    scenarios: {
        ramp: {
            executor: 'ramping-arrival-rate', startRate: 0, timeUnit: '1s', preAllocatedVUs: 10,
            stages: [{ target: 400, duration: '1s' }, { target: 400, duration: '1s' }, { target: 0, duration: '500ms' }],
        },
    },
    thresholds: { iterations: ['count>=500', 'count<=700'] },
};

export default function () {}
