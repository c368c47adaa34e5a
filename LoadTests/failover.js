// Readers and writers while a server is lost and comes back: run it against a router whose routes fail over, or a fleet
// whose clients do, and stop a server meanwhile. What is asked for goes on being answered, and soon.
import memcached from 'k6/x/memcached';
import { check } from 'k6';
import { setTimeout } from 'k6/timers';

const duration = __ENV.DURATION || '3s';
export const options = {
    scenarios: {
        users: {
            executor: 'constant-arrival-rate', rate: 100, duration, preAllocatedVUs: 20, maxVUs: 60, gracefulStop: '5s',
        },
    },
    thresholds: {
        // A request that was with the server when it went may fail once; it is asked again as a service would.
        memcached_req_failed: ['rate<0.02'],
        memcached_req_duration: ['p(95)<1000'],
        checks: ['rate>0.999'],
        dropped_iterations: ['rate<10'],
    },
};

const again = async call => {
    for (let attempt = 0; ; attempt++) {
        try { return await call(); } catch (error) {
            if (attempt === 5) return error;
            await new Promise(resolve => setTimeout(resolve, 50));
        }
    }
};

export default async function () {
    const key = `failover:${Math.floor(Math.random() * 1000)}`;
    let value = await again(() => memcached.get(key));
    if (value === null) value = await again(() => memcached.set(key, key, 60)) === true ? key : null;
    check(value, { 'it is answered, with its own value': v => v === key });
}
