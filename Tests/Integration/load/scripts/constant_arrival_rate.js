import memcached from 'k6/x/memcached';

export const options = {
    scenarios: {
        open: { executor: 'constant-arrival-rate', rate: 200, duration: '2s', preAllocatedVUs: 20, maxVUs: 50 },
    },
    thresholds: { iterations: ['count>=300', 'count<=400'], memcached_req_failed: ['rate==0'] },
};

export default async function () { await memcached.get('arrival'); }
