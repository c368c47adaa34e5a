// Whose figures are the same in every run, but for how long things took: test_summary.py compares what is said of them.
import { check, group } from 'k6';
import { Counter, Gauge, Rate, Trend } from 'k6/metrics';
import memcached from 'k6/x/memcached';

const pages = new Counter('pages');
const depth = new Gauge('depth');
const hits = new Rate('hits');
const waits = new Trend('waits', true);

export const options = {
    vus: 1,
    iterations: 20,
    summaryTrendStats: ['avg', 'min', 'med', 'max', 'p(90)', 'p(99.9)', 'count'],
    thresholds: {
        waits: ['max<1000', 'p(90)<40'],
        hits: ['rate>0.5'],
        checks: ['rate>0.9'],
        'pages{kind:front}': ['count==20'],
    },
};

export default async function () {
    await memcached.set('k', 'v');
    group('child', () => {
        check(1, { 'always': () => true, 'never': () => false });
    });
    pages.add(1, { kind: 'front' });
    pages.add(2, { kind: 'back' });
    depth.add(3);
    hits.add(true);
    waits.add(50);
}
