export const one = 1, two = 2;
export let { a, b: [c], ...rest } = { a: 'a', b: ['c'], d: 4, e: 5 };
export function named() { return 'named'; }
export async function later() { return 'later'; }
export class Shape { get name() { return 'shape'; } }
const hidden = 'renamed';
export { hidden as shown };
export * from './more.js';
export * as all from './more.js';
export { default as other } from './more.js';
export default function () { return 'anonymous'; }
(function () { /* a line that begins with a bracket */ })();
