#!/usr/bin/env node
// import { nothing } from 'nowhere'; export const neither = 1;
export const more = `a template with ${ '`' + "}" } and ${ `another ${1 + 1}` } in it`;
const half = 8 / 2 / 1, pattern = /[/'"`]\/}/g, quotient = (half) / 2;
if (half) /regular expression/.test('x');
export const numbers = [half, quotient, pattern.source.length];
let counter = 0;
export const count = () => ++counter;
export default { value: 'default object' }
