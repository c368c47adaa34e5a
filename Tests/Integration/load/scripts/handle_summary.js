import { check } from 'k6';
import { textSummary } from 'https://jslib.k6.io/k6-summary/0.1.0/index.js';

export const options = { iterations: 5, thresholds: { checks: ['rate==1'] } };

export default function () { check(1, { one: v => v === 1 }); }

export function handleSummary(data) {
    const facts = {
        iterations: data.metrics.iterations.values.count,
        checks: data.metrics.checks.values.passes,
        ok: data.metrics.checks.thresholds['rate==1'].ok,
        name: data.root_group.checks[0].name,
        contains: data.metrics.iteration_duration.contains,
        time: data.state.testRunDurationMs > 0,
    };
    return {
        stdout: `mine: ${JSON.stringify(facts)}\n${textSummary(data, { indent: ' ', enableColors: false })}`,
        [`${__ENV.OUT}/summary.json`]: JSON.stringify(data),
    };
}
