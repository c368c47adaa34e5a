import { SharedArray } from 'k6/data';
import { check } from 'k6';

const users = new SharedArray('users', function () { return JSON.parse(open('./modules/users.json')).users; });
export const options = { vus: 3, iterations: 30, thresholds: { checks: ['rate==1'] } };

export default function () {
    const user = users[__ITER % users.length];
    check(users, {
        length: list => list.length === 3,
        element: () => user.name === ['ada', 'bob', 'cyd'][__ITER % 3],
        iterable: list => [...list].map(u => u.name).join() === 'ada,bob,cyd',
        methods: list => list.map(u => u.age).reduce((a, b) => a + b) === 90,
        'beyond the end': list => list[3] === undefined,
        'cannot be changed': list => {
            try { list[0] = 1; return false; } catch { return true; }
        },
        'elements neither': list => {
            try { 'use strict'; list[0].name = 'x'; return false; } catch { return true; }
        },
    });
}
