import { Counter } from 'k6/metrics';
import exec from 'k6/execution';

export const options = {
    scenarios: { shared: { executor: 'shared-iterations', vus: 5, iterations: 203, maxDuration: '20s' } },
    thresholds: { iterations: ['count===203'], seen: ['count==203'] },
};
const seen = new Counter('seen');

export default function () {
    if (exec.scenario.executor !== 'shared-iterations') throw new Error(exec.scenario.executor);
    seen.add(1);
}
