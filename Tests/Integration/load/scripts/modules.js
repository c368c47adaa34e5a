import anonymous, { one, two, a, c, rest, named, later, Shape, shown, more, all, other, count } from './modules/shapes.js';
import * as space from './modules/shapes.js'
import { numbers as list } from "./modules/more.js";
import { randomIntBetween, randomItem, uuidv4 } from 'https://jslib.k6.io/k6-utils/1.4.0/index.js';
import encoding, { b64encode } from 'k6/encoding';
import { setTimeout } from 'k6/timers';
import { check } from 'k6';

export const options = { iterations: 2, thresholds: { checks: ['rate==1'] } };

export default async () => {
    const modules = await import('./modules/shapes.js');
    check(null, {
        names: () => one + two === 3 && a + c === 'ac' && rest.d === 4 && named() === 'named' && shown === 'renamed',
        classes: () => new Shape().name === 'shape' && anonymous() === 'anonymous' && other.value === 'default object',
        templates: () => more === 'a template with `} and another 2 in it' && all.more === more,
        slashes: () => list.join() === '4,2,9',
        namespace: () => space.one === 1 && space.default === anonymous && space.more === more,
        'evaluated once': () => modules.one === 1 && modules.count === count,
        meta: () => /modules\.js$/.test(import.meta.url),
        utils: () => randomIntBetween(3, 3) === 3 && randomItem([7]) === 7 && /^[0-9a-f-]{36}$/.test(uuidv4()),
        encoding: () => b64encode('h\u00e9llo') === 'aMOpbGxv' && encoding.b64decode('aMOpbGxv', 'std', 's') === 'h\u00e9llo',
    });
    check(await later(), { async: v => v === 'later' });
    const before = Date.now();
    await new Promise(resolve => setTimeout(resolve, 50));
    check(Date.now() - before, { timers: ms => ms >= 48 && ms < 500 });
};
