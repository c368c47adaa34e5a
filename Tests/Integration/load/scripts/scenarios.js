import { Counter } from 'k6/metrics';
import exec from 'k6/execution';

const runs = new Counter('runs');
export const options = {
    tags: { everywhere: 'yes' },
    scenarios: {
        first: { executor: 'per-vu-iterations', vus: 2, iterations: 3, exec: 'one', env: { WHO: 'first' } },
        second: {
            executor: 'shared-iterations', vus: 2, iterations: 4, exec: 'two', startTime: '500ms',
            tags: { kind: 'late' }, env: { WHO: 'second' },
        },
    },
    thresholds: {
        'runs{who:first,scenario:first,everywhere:yes}': ['count==6'],
        'runs{who:second,kind:late}': ['count==4'],
        'iterations{scenario:second}': ['count==4'],
    },
};

export function one() { runs.add(1, { who: __ENV.WHO }); }

export function two() {
    if (exec.instance.currentTestRunDuration < 490) throw new Error('too early');
    runs.add(1, { who: __ENV.WHO });
}
