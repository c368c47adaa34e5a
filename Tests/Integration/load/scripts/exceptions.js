import { fail } from 'k6';

export const options = { vus: 1, iterations: 4, thresholds: { iterations: ['count==4'] } };

export default async function () {
    if (__ITER === 0) fail('by fail');
    if (__ITER === 1) {
        const nothing = null;
        nothing.property;
    }
    await null;
    if (__ITER === 2) throw new RangeError('behind an await');
}
